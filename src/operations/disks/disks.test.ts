/** Disks become folders and volume groups, and blank again: loop devices, real tools. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { silentLog } from '#base/log.ts'
import { Directories } from '#disks/directories.ts'
import { blockDevice } from '#host/disks/block-devices.ts'
import { machine } from '#host/exec.ts'
import { physicalVolumes } from '#host/disks/lvm.ts'
import { mountPoints, unmountBelow } from '#host/disks/mount.ts'
import { openersOf } from '#host/disks/open-by.ts'
import type { StorageService } from '#storage/service.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { loopDisk } from '../../../test/fixtures/loop-disk.ts'
import { guestWorld } from '../../../test/guest/qemu-world.ts'
import { createDirectory, type DirectoryDeps, removeDirectory } from './directory.ts'
import { createVolumeGroup, removeVolumeGroup } from './lvm.ts'
import { initDisk, wipeDisk } from './whole-disk.ts'

const host = machine()
const uuid = '8c3f1b1e-9a55-4c9e-8d8e-27f3b3a1a001'
/** Names of volume groups are the machine's: no two worlds share one. */
let groups = 0

/** A node with one disk it may touch. */
async function world(sizeBytes = 24 * MiB, hasPartitions = false) {
  await using undo = new AsyncDisposableStack()
  const base = undo.use(await guestWorld({ forgetful: true }))
  const disk = undo.use(await loopDisk(sizeBytes, hasPartitions))
  undo.defer(() => unmountBelow(host, base.settings.stateDir))
  const { guests, storage, store } = base
  const settings = { ...base.settings, devices: [disk.path] }
  const directories = new Directories({ settings, store, host })
  groups += 1
  const group = `hkt${process.pid}x${groups}`
  // The same identifier in every world, so that two of them can be compared.
  const random = { bytes: (count: number) => new Uint8Array(count).fill(7), uuid: () => uuid }
  const deps: DirectoryDeps = { host, settings, storage, guests, directories, random }
  const release = undo.move()
  const look = async () => {
    const { fileSystem, partitionTable, children } = await blockDevice(host, disk.path)
    const inStateDir = (path: string) => path.startsWith(settings.stateDir)
    return {
      disk: { fileSystem, partitionTable, parts: children.length },
      groups: (await physicalVolumes(host))
        .filter(({ device }) => device === disk.path)
        .map((one) => one.group === group),
      mounts: (await mountPoints()).filter(inStateDir).map((path) => path.slice(settings.stateDir.length)),
      folders: await readdir(join(settings.stateDir, 'mnt')).catch(() => []),
      files: (await readdir(settings.stateDir)).filter((name) => name.endsWith('.saved')),
      records: (await directories.list()).map(({ name, type }) => [name, type]),
      storages: (await storage.list()).map(({ name, options }) => [name, Object.keys(options).toSorted()]),
    }
  }
  return { base, deps, disk, group, look, [Symbol.asyncDispose]: () => release.disposeAsync() }
}

const task = { upid: 'test', user: 'root@pam', node: 'testnode', startTime: 0 }
const fast = { name: 'fast', fileSystem: 'ext4', addStorage: true } as const

/** Crashes take a hundred runs each, with a disk for each; undos that look at the world bear them as they bear failures. */
const quickly = { withCrashes: false }

everyStepFails(
  createDirectory,
  async () => {
    const made = await world()
    return { ...made, params: { device: made.disk.path, ...fast } }
  },
  quickly,
)

everyStepFails(
  removeDirectory,
  async () => {
    const made = await world()
    await perform(createDirectory, { device: made.disk.path, ...fast }, made.deps, memoryJournal(), { task })
    return { ...made, params: { name: 'fast', cleanupConfig: true, cleanupDisks: true } }
  },
  quickly,
)

everyStepFails(
  createVolumeGroup,
  async () => {
    const made = await world()
    return { ...made, params: { device: made.disk.path, name: made.group, addStorage: false } }
  },
  quickly,
)

everyStepFails(
  removeVolumeGroup,
  async () => {
    const made = await world()
    const params = { device: made.disk.path, name: made.group, addStorage: false }
    await perform(createVolumeGroup, params, made.deps, memoryJournal(), { task })
    return { ...made, params: { name: made.group, cleanupDisks: true } }
  },
  quickly,
)

everyStepFails(
  initDisk,
  async () => {
    const made = await world()
    return { ...made, params: { disk: made.disk.path } }
  },
  quickly,
)

everyStepFails(
  wipeDisk,
  async () => {
    const made = await world()
    await host.run(['mkfs.ext4', '-q', '-F', made.disk.path])
    return { ...made, params: { disk: made.disk.path } }
  },
  { isFinal: true, ...quickly },
)

test('a disk that became a folder is mounted again at every start, and what was written is there', async () => {
  await using made = await world(320 * MiB)
  const { deps, disk, base } = made
  await perform(
    createDirectory,
    { device: disk.path, name: 'fast', fileSystem: 'xfs', addStorage: true },
    deps,
    memoryJournal(),
    { task },
  )
  const path = deps.directories.pathOf('fast')
  await writeFile(join(path, 'note'), 'kept')
  assert.match(await readFile('/proc/self/mountinfo', 'utf8'), new RegExp(` ${path} .* - xfs ${disk.path} `))
  assert.equal((await deps.storage.status('fast')).active, true)
  // As after a restart of the machine.
  await unmountBelow(host, path)
  assert.equal((await deps.storage.status('fast')).active, false)
  await new Directories({ settings: deps.settings, store: base.store, host }).mountAll(silentLog)
  assert.equal(await readFile(join(path, 'note'), 'utf8'), 'kept')
  assert.equal((await deps.storage.status('fast')).active, true)
})

test('a disk on which a guest has a disk stays', async () => {
  await using made = await world()
  const { deps, base } = made
  await perform(createDirectory, { device: made.disk.path, ...fast }, deps, memoryJournal(), { task })
  await base.define(100, { scsi0: 'fast:100/vm-100-disk-0.raw,size=1M' })
  const before = await made.look()
  const removing = perform(removeDirectory, { name: 'fast', cleanupConfig: true }, deps, memoryJournal())
  await assert.rejects(removing, /guest 100 has 'fast:100\/vm-100-disk-0.raw' there/)
  await assert.rejects(
    perform(removeDirectory, { name: 'fast', cleanupDisks: true }, deps, memoryJournal()),
    /guest 100 has/,
  )
  assert.deepEqual(await made.look(), before)
})

test('a disk is not touched while anybody uses it, and the refusal says who', async () => {
  await using made = await world()
  const { deps, disk } = made
  const refused = async (pattern: RegExp) => {
    const before = await made.look()
    const attempts = [
      () => perform(wipeDisk, { disk: disk.path }, deps, memoryJournal()),
      () => perform(initDisk, { disk: disk.path }, deps, memoryJournal()),
      () =>
        perform(
          createVolumeGroup,
          { device: disk.path, name: `${made.group}y`, addStorage: false },
          deps,
          memoryJournal(),
        ),
      () => perform(createDirectory, { device: disk.path, ...fast, name: 'other' }, deps, memoryJournal(), { task }),
    ]
    for (const attempt of attempts)
      await assert.rejects(attempt, (error) => isFault(error, 'conflict') && pattern.test(error.message))
    assert.deepEqual(await made.look(), before)
  }
  // Somebody has it open.
  const reader = spawn('sh', ['-c', `exec 3<${disk.path}; echo open; exec sleep 60`], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  await once(reader.stdout, 'data')
  await refused(new RegExp(`is open in process ${reader.pid} \\(sleep\\)`))
  reader.kill('SIGKILL')
  await once(reader, 'close')
  // It is mounted.
  await perform(createDirectory, { device: disk.path, ...fast }, deps, memoryJournal(), { task })
  await refused(new RegExp(`is mounted on '${deps.directories.pathOf('fast')}'`))
  await perform(removeDirectory, { name: 'fast', cleanupConfig: true, cleanupDisks: true }, deps, memoryJournal())
  // It is part of a volume group.
  await perform(createVolumeGroup, { device: disk.path, name: made.group, addStorage: false }, deps, memoryJournal())
  await refused(new RegExp(`is part of the volume group '${made.group}'`))
  await perform(removeVolumeGroup, { name: made.group, cleanupDisks: true }, deps, memoryJournal())
  // It is swap. The kernel of this machine need not allow it on a loop device.
  execFileSync('mkswap', [disk.path], { stdio: 'ignore' })
  execFileSync('swapon', [disk.path])
  try {
    await refused(/is swap/)
  } finally {
    execFileSync('swapoff', [disk.path])
  }
})

test('what is on a disk is named before anything takes it, and wiping takes partitions too', async () => {
  await using made = await world(64 * MiB, true)
  const { deps, disk } = made
  const create = () => perform(createDirectory, { device: disk.path, ...fast }, deps, memoryJournal(), { task })
  await perform(initDisk, { disk: disk.path, uuid }, deps, memoryJournal())
  assert.match((await host.run(['sfdisk', '--dump', disk.path])).stdout, new RegExp(`label-id: ${uuid}`, 'i'))
  await assert.rejects(perform(initDisk, { disk: disk.path }, deps, memoryJournal()), /has a partition table already/)
  await host.run(['sfdisk', '--quiet', '--append', disk.path], { input: 'size=20M\n' })
  await host.run(['partx', '--update', disk.path])
  const part = `${disk.path}p1`
  await waitFor(
    () =>
      blockDevice(host, part).then(
        () => true,
        () => false,
      ),
    { what: part, timeoutMs: 60_000 },
  )
  await host.run(['mkfs.ext4', '-q', part])
  await assert.rejects(create, new RegExp(`there is the partition '${part}' on it`))
  await perform(wipeDisk, { disk: disk.path }, deps, memoryJournal())
  const { fileSystem, partitionTable, children } = await blockDevice(host, disk.path)
  assert.deepEqual([fileSystem, partitionTable, children], [undefined, undefined, []])
  await using file = await open(disk.path, 'r')
  const { buffer } = await file.read(Buffer.alloc(MiB), 0, MiB, 0)
  assert.ok(buffer.equals(Buffer.alloc(MiB)))
  assert.deepEqual(await openersOf(disk.path), [])
})

test('an empty partition table is taken along, and is there again when nothing came of it', async () => {
  await using made = await world()
  const { deps, disk } = made
  await perform(initDisk, { disk: disk.path }, deps, memoryJournal())
  const before = await made.look()
  assert.equal(before.disk.partitionTable, 'gpt')
  const broken = { ...deps, storage: new Proxy(deps.storage, { get: failing }) }
  await assert.rejects(
    perform(createDirectory, { device: disk.path, ...fast }, broken, memoryJournal(), { task }),
    /injected/,
  )
  assert.deepEqual(await made.look(), before)
  await perform(createVolumeGroup, { device: disk.path, name: made.group, addStorage: false }, deps, memoryJournal())
  assert.equal((await made.look()).disk.fileSystem, 'LVM2_member')
})

/** Everything but making a storage works. */
function failing(storage: StorageService, name: keyof StorageService): unknown {
  const own = storage[name]
  if (name === 'create') return () => Promise.reject(new Error('injected'))
  return typeof own === 'function' ? own.bind(storage) : own
}

test('a disk nobody gave the node is not its to touch', async () => {
  await using made = await world()
  await using other = await loopDisk(MiB)
  const shared = { ...made.deps, settings: { ...made.deps.settings, devices: [] } }
  const wipe = (disk: string, deps = made.deps) => perform(wipeDisk, { disk }, deps, memoryJournal())
  await assert.rejects(wipe(other.path), /belongs to the machine, which this node shares with others/)
  await assert.rejects(wipe(made.disk.path, shared), /belongs to the machine/)
  await assert.rejects(wipe('/dev/no-such-disk'), /device '\/dev\/no-such-disk' does not exist/)
  await assert.rejects(wipe('/dev/null'), /is no disk/)
  await assert.rejects(wipe('/dev/../etc/passwd'), /is no disk/)
})

test('a storage without a driver is refused before anything is written', async () => {
  await using made = await world()
  const { deps, disk } = made
  const adding = perform(
    createVolumeGroup,
    { device: disk.path, name: made.group, addStorage: true },
    deps,
    memoryJournal(),
  )
  await assert.rejects(adding, /there is no driver for storages of type 'lvm'/)
  assert.equal((await blockDevice(host, disk.path)).fileSystem, undefined)
})
