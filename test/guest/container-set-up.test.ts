/**
 * A real Debian, from the distribution's packages: unpacked under an id map, told who it is, and started by LXC as it
 * is. What it says of itself is asked from inside.
 */
import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { osTypeOf, setUpForStart, setUpNew } from '#guests/lxc/setup/set-up.ts'
import type { Told } from '#guests/lxc/setup/told.ts'
import { unpackTemplate } from '#guests/lxc/unpack.ts'
import { cryptPassword } from '#host/system/crypt.ts'
import { machine } from '#host/exec.ts'
import type { Argv } from '#host/host.ts'
import type { IdMap } from '#host/lxc/id-map.ts'
import { ensureContainerTemplate } from '#lab/container-template.ts'
import { settingsFrom } from '../../src/settings.ts'

const host = machine()
const idMap: IdMap = (['uid', 'gid'] as const).map((kind) => ({ kind, inside: 0, outside: 100_000, count: 65_536 }))
const owner = { uid: 100_000, gid: 100_000 }
const told: Told = {
  hostname: 'web.example.org',
  nics: [{ name: 'eth0', ip4: { kind: 'static', address: '10.99.0.2', bits: 24, gateway: '10.99.0.1' } }],
  dns: { servers: ['192.0.2.53'], search: ['example.org'] },
  ttys: 1,
  timezone: 'Asia/Tokyo',
}

suite('a container of the template of lab and tests', { timeout: 600_000 }, () => {
  let home: string
  let name: string
  const cable = `hkct${process.pid}`
  before(async () => {
    const archive = await ensureContainerTemplate({ host, cacheDir: settingsFrom().cacheDir })
    home = await mkdtemp(join(tmpdir(), 'hako-ct-'))
    await chmod(home, 0o755)
    name = home.replace(/.*\//, '')
    const rootfs = join(home, 'rootfs')
    await mkdir(rootfs)
    await unpackTemplate({ archive, rootfs, idMap })
    const inside = { rootfs, owner, ostype: await osTypeOf({ rootfs, owner }), warn: assert.fail }
    await setUpNew(host, inside, {
      ...told,
      passwordHash: await cryptPassword(host, 'only for this test'),
      sshKeys: ['ssh-ed25519 AAAA ann'],
    })
    await setUpForStart(inside, told)
    await mkdir(join(home, name))
    await writeFile(join(home, name, 'config'), lxcConfig(rootfs))
    await host.run(['lxc-start', '-P', home, '-n', name, '-L', join(home, 'console')])
    await host.run(['ip', 'link', 'set', cable, 'up'])
  })
  after(async () => {
    await host.run(['lxc-stop', '-P', home, '-n', name, '--kill'], { okCodes: [0, 1, 2] })
    await rm(home, { recursive: true, force: true })
  })
  const inside = async (...argv: Argv) => {
    const attach = ['lxc-attach', '-P', home, '-n', name, '--clear-env', '--'] as const
    return (await host.run([...attach, ...argv], { okCodes: [0, 1] })).stdout.trim()
  }

  test('comes up whole, as who it was told to be', async () => {
    const state = () => inside('systemctl', 'is-system-running')
    await waitFor(async () => ['running', 'degraded'].includes(await state()), { what: 'systemd', timeoutMs: 60_000 })
    assert.equal(await inside('systemctl', '--failed', '--no-legend'), '')
    assert.equal(await inside('cat', '/etc/hostname'), 'web')
    assert.match(await inside('getent', 'hosts', 'web'), /^10\.99\.0\.2\s+web\.example\.org web/)
    assert.match(await inside('cat', '/etc/resolv.conf'), /^nameserver 192\.0\.2\.53$/m)
    assert.match(await inside('date', '+%Z'), /^JST$/)
    assert.equal(await inside('stat', '-c', '%U %a', '/root/.ssh/authorized_keys'), 'root 600')
    assert.match(await inside('cat', '/etc/machine-id'), /^[0-9a-f]{32}$/)
    assert.match(await inside('busybox', 'wget', '-qO-', 'http://127.0.0.1/'), /comes out of a container/)
  })

  test('has the address its card was told', async () => {
    const address = async () => (await inside('ip', '-br', 'address', 'show', 'eth0')).includes('10.99.0.2/24')
    await waitFor(address, { what: 'the address', timeoutMs: 20_000 })
    assert.match(await inside('ip', 'route', 'show', 'default'), /^default via 10\.99\.0\.1 dev eth0/)
  })

  test('lets one log in on its terminals', async () => {
    const units = await inside('systemctl', 'list-units', '--plain', '--no-legend', '--state=running', '*getty*')
    assert.deepEqual(units.match(/^\S+/gm), ['console-getty.service', 'container-getty@1.service'])
    await waitFor(async () => (await readFile(join(home, 'console'), 'utf8')).includes('web login:'), {
      what: 'a login on the console',
      timeoutMs: 20_000,
    })
    const [, hash = ''] = /^root:([^:]*):/.exec(await inside('grep', '^root:', '/etc/shadow')) ?? []
    const [, , salt = ''] = hash.split('$')
    const again = await host.run(['openssl', 'passwd', '-6', '-salt', salt, '-stdin'], {
      input: 'only for this test\n',
    })
    assert.equal(again.stdout.trim(), hash)
  })

  /** Two cards at the ends of one cable: neither bridge nor address of the machine is touched. */
  function lxcConfig(rootfs: string): string {
    return `${[
      'lxc.include = /usr/share/lxc/config/common.conf',
      'lxc.include = /usr/share/lxc/config/userns.conf',
      'lxc.uts.name = web',
      `lxc.rootfs.path = dir:${rootfs}`,
      'lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed',
      'lxc.idmap = u 0 100000 65536',
      'lxc.idmap = g 0 100000 65536',
      'lxc.apparmor.profile = unconfined',
      'lxc.net.0.type = veth',
      'lxc.net.0.name = eth0',
      `lxc.net.0.veth.pair = ${cable}`,
      'lxc.net.0.flags = up',
      'lxc.tty.max = 1',
      'lxc.tty.dir = lxc',
    ].join('\n')}\n`
  }
})
