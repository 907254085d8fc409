/** Configurations as LXC reads them, against files people read in review. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { limitFiles } from '#host/cgroups/cgroup-limits.ts'
import { servedFiles, servedProcessors } from '#host/lxc/lxcfs.ts'
import type { Options } from '../config.ts'
import { containerConf, type ContainerFacts } from './conf.ts'
import { devicesOf } from './device.ts'
import { coresOf, groupLimitsOf } from './limits.ts'
import { mountsOf } from './mountpoint.ts'
import { nicsOf } from './nic.ts'
import { optionErrors } from './options.ts'
import { seccompProfile } from './seccomp.ts'

const golden = join(import.meta.dirname, 'golden')

function readConf(name: string): Options {
  const lines = readFileSync(join(golden, `${name}.conf`), 'utf8')
    .trim()
    .split('\n')
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]))
}

/** As a start would find them: every volume mounted, every card that is plugged in with its cable. */
function factsFor(options: Options, version: 'v1' | 'v2'): ContainerFacts {
  const cores = coresOf(options)
  const cards = nicsOf(options).filter(({ isLinkDown }) => !isLinkDown)
  return {
    vmid: 100,
    rootfs: '/run/hakobune/node/mounts/100/rootfs',
    group: 'hakobune-node/lxc-100',
    cgroupVersion: version,
    limits: limitFiles(groupLimitsOf(options), version).map(([, , file, value]) => ({ file, value })),
    processors: cores === undefined ? undefined : '0,2',
    rebootHook: '/run/hakobune/node/guests/100/reboot',
    seccompFile: '/run/hakobune/node/guests/100/seccomp',
    hasAppArmor: version === 'v2',
    served: { target: '/run/hakobune/node/lxcfs/fs', files: servedFiles, processors: servedProcessors },
    sources: Object.fromEntries(mountsOf(options).map(({ name }) => [name, `/run/hakobune/node/mounts/100/${name}`])),
    cables: Object.fromEntries(cards.map(({ name }, at) => [name, `hknodee${at}`])),
    devices: devicesOf(options).map(({ name, path }) => ({ source: `/run/devices/${name}`, path, number: 'c 188:0' })),
  }
}

const cases = readdirSync(golden)
  .filter((name) => name.endsWith('.conf'))
  .map((name) => name.slice(0, -'.conf'.length))

for (const name of cases) {
  for (const version of ['v1', 'v2'] as const) {
    test(`${name} becomes what LXC reads, with control groups ${version}`, () => {
      const options = readConf(name)
      assert.deepEqual(optionErrors(options), {})
      const expected = readFileSync(join(golden, `${name}.${version}.txt`), 'utf8')
      assert.equal(containerConf(options, factsFor(options, version)), expected)
    })
  }
}

test('no value can end its line, whatever somebody writes', () => {
  for (const [name, value] of Object.entries({
    hostname: 'x\nlxc.hook.pre-start = /bin/sh',
    entrypoint: '/bin/sh\nlxc.apparmor.profile = unconfined',
    env: 'A=b\nlxc.hook.pre-start = /bin/sh',
    mp0: 'local:1,mp=/srv\nlxc.hook.pre-start = x',
    net0: 'name=eth0\nlxc.net.1.type = phys',
    dev0: '/dev/null\nlxc.x = y',
  })) {
    assert.notDeepEqual(optionErrors({ [name]: value }), {}, name)
  }
})

test('what is refused of system calls follows from the features', () => {
  assert.match(seccompProfile({ keyctl: false }), /^keyctl errno 38$/m)
  assert.doesNotMatch(seccompProfile({ keyctl: true }), /keyctl/)
  assert.match(seccompProfile({ keyctl: true }), /^2\ndenylist\n/)
})
