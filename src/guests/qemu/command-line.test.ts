import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Options } from '../config.ts'
import type { StartFacts } from './command-line.ts'
import { configToArgv, words } from './command-line.ts'
import { drivesOf, wishOf } from './drive.ts'
import type { Accelerator } from './machine.ts'
import { nicsOf } from './nic.ts'
import { optionErrors } from './options.ts'

const golden = join(import.meta.dirname, 'golden')

export function readConf(name: string): Options {
  const lines = readFileSync(join(golden, `${name}.conf`), 'utf8')
    .trim()
    .split('\n')
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]))
}

/** Facts as a start would find them: every volume is a file, every bridged card a tap. */
function factsFor(options: Options, accelerator: Accelerator): StartFacts {
  const files = drivesOf(options).flatMap((drive) => {
    const wish = wishOf(drive)
    if (wish.kind !== 'volume') return []
    const path = `/var/lib/images/${wish.volid.split(':')[1]}`
    const format = path.endsWith('qcow2') ? 'qcow2' : 'raw'
    return [[drive.name, { path, format, canBypassCache: true, canUseRing: true }] as const]
  })
  const bridged = nicsOf(options).filter(({ bridge }) => bridge !== undefined)
  return {
    vmid: 100,
    accelerator,
    runDir: '/run/hakobune/node/guests/100',
    files: Object.fromEntries(files),
    taps: Object.fromEntries(bridged.map(({ name }, position) => [name, 3 + position])),
  }
}

/** One argument per line, and the value of an option beside it: what a reviewer can read. */
function layOut(argv: readonly string[]): string {
  return argv.reduce((text, part) => text + (part.startsWith('-') ? `\n${part}` : ` ${part}`), '').trim() + '\n'
}

const cases = readdirSync(golden)
  .filter((name) => name.endsWith('.conf'))
  .map((name) => name.slice(0, -'.conf'.length))

for (const name of cases) {
  for (const accelerator of ['kvm', 'tcg'] as const) {
    test(`the command line of ${name} under ${accelerator} is the reviewed one`, (t) => {
      const options = readConf(name)
      assert.deepEqual(optionErrors(options), {})
      const argv = configToArgv(options, factsFor(options, accelerator))
      t.assert.fileSnapshot(layOut(argv), join(golden, `${name}.${accelerator}.txt`), { serializers: [String] })
    })
  }
}

test('every golden file belongs to a case', () => {
  const expected = cases.flatMap((name) => [`${name}.conf`, `${name}.kvm.txt`, `${name}.tcg.txt`])
  assert.deepEqual(readdirSync(golden).toSorted(), expected.toSorted())
})

test('a name with a comma stays a name', () => {
  const argv = configToArgv({ name: 'a,debug-threads=off' }, factsFor({}, 'tcg'))
  assert.equal(argv[argv.indexOf('-name') + 1], 'a,,debug-threads=off,debug-threads=on')
})

test('adding a disk or a card moves no other device', () => {
  const before: Options = {
    scsihw: 'virtio-scsi-pci',
    scsi3: 'local:100/vm-100-disk-0.raw',
    net2: 'virtio=BC:24:11:00:00:02',
  }
  const more = {
    scsi0: 'local:100/vm-100-disk-1.raw',
    virtio1: 'local:100/vm-100-disk-2.raw',
    net0: 'virtio=BC:24:11:00:00:01',
  }
  const devices = (options: Options) =>
    configToArgv({ ...options, boot: 'order=scsi3;net2' }, factsFor(options, 'tcg')).filter((part) =>
      /addr=/.test(part),
    )
  const after = devices({ ...before, ...more })
  for (const device of devices(before)) assert.ok(after.includes(device), device)
})

test('disks queue their requests with the kernel where they can, and as they are told', () => {
  const options: Options = {
    scsi0: 'local:100/vm-100-disk-0.raw',
    scsi1: 'local:100/vm-100-disk-1.raw,aio=threads',
    scsi2: 'local:100/vm-100-disk-2.raw,aio=native',
    scsi3: 'local:100/vm-100-disk-3.raw,aio=native,cache=writeback',
  }
  const aioOf = (canUseRing: boolean) => {
    const { files, ...facts } = factsFor(options, 'tcg')
    const known = Object.fromEntries(Object.entries(files).map(([name, file]) => [name, { ...file, canUseRing }]))
    const argv = configToArgv(options, { ...facts, files: known })
    return argv.flatMap((part) => /"aio":"(\w+)"/.exec(part)?.[1] ?? [])
  }
  assert.deepEqual(aioOf(true), ['io_uring', 'threads', 'native', 'threads'])
  assert.deepEqual(aioOf(false), ['threads', 'threads', 'native', 'threads'])
})

test('quotes keep words of args together and are not passed on', () => {
  assert.deepEqual(words(`-a "b c" d'e f'g  -h`), ['-a', 'b c', 'de fg', '-h'])
  assert.deepEqual(words(''), [])
})
