/** Snapshots and growth of disks: whatever fails, disks and configuration belong together. Guests are tiny and real. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { asVolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import {
  addDisk,
  diskBytes,
  diskWorld,
  fill,
  lettersOf,
  look,
  placesLike,
  run,
  volumeAt,
} from '../../../test/guest/disk-world.ts'
import type { GuestWorld } from '../../../test/guest/qemu-world.ts'
import { configureGuest } from './configure.ts'
import { deleteSnapshot } from './delete-snapshot.ts'
import { destroyGuest } from './destroy.ts'
import { resizeDisk } from './resize.ts'
import { rollbackGuest } from './rollback.ts'
import { snapshotGuest } from './snapshot.ts'

async function guestWithDisks(
  format: 'raw' | 'qcow2' = 'qcow2',
  options: Options = {},
): Promise<{ world: GuestWorld; vmid: ReturnType<GuestWorld['id']> }> {
  const world = await diskWorld()
  const [first, second] = [await addDisk(world, 100, format, 'A'), await addDisk(world, 100, format, 'B')]
  const vmid = await world.define(100, {
    scsihw: 'virtio-scsi-pci',
    scsi0: `${first},size=1M`,
    virtio1: `${second},size=1M`,
    ...options,
  })
  return { world, vmid }
}

const started = async ({ guests, id }: GuestWorld) => guests.start(id(100))
const withSnapshot = async (world: GuestWorld) => {
  await run(world, snapshotGuest, { vmid: 100, name: 'before' })
  await fill(world, volumeAt((await world.guests.config(world.id(100))).options, 'scsi0'), 'X')
  await world.guests.changeConfig(world.id(100), (options) => ({ ...options, cores: '2' }))
}

const plain = async () => (await guestWithDisks()).world
const prepared = async () => {
  const world = await plain()
  await withSnapshot(world)
  return world
}

suite('a stopped guest', () => {
  everyStepFails(snapshotGuest, placesLike(plain, { name: 'one', description: 'first' }))
  everyStepFails(rollbackGuest, placesLike(prepared, { name: 'before' }))
  everyStepFails(deleteSnapshot, placesLike(prepared, { name: 'before' }), { isFinal: true })
  everyStepFails(resizeDisk, placesLike(plain, { disk: 'scsi0', size: '+1M' }), { isFinal: true })
})

suite('a running guest', () => {
  const without = { withCrashes: false }
  everyStepFails(snapshotGuest, placesLike(plain, { name: 'one' }, started), without)
  suite('with its memory', () =>
    everyStepFails(snapshotGuest, placesLike(plain, { name: 'one', memory: true }, started), without),
  )
  const apart = async (world: GuestWorld) => {
    await world.guests.changeConfig(world.id(100), (options) => ({ ...options, vmstatestorage: 'local' }))
    await started(world)
  }
  suite('with its memory in a volume of its own', () =>
    everyStepFails(snapshotGuest, placesLike(plain, { name: 'one', memory: true }, apart), without),
  )
  everyStepFails(rollbackGuest, placesLike(prepared, { name: 'before' }, started), without)
  everyStepFails(deleteSnapshot, placesLike(prepared, { name: 'before' }, started), {
    isFinal: true,
    withCrashes: false,
  })
  everyStepFails(resizeDisk, placesLike(plain, { disk: 'virtio1', size: '3M' }, started), {
    isFinal: true,
    withCrashes: false,
  })
})

test('a rollback brings back content, sizes and configuration, and keeps later disks as unused', async () => {
  const { world, vmid } = await guestWithDisks()
  await using _ = world
  const { options: before } = await world.guests.config(vmid)
  const first = volumeAt(before, 'scsi0')
  await run(world, snapshotGuest, { vmid, name: 'one' })
  await fill(world, first, 'X')
  await run(world, resizeDisk, { vmid, disk: 'scsi0', size: '2M' })
  const change = { set: { scsi2: 'local:0.01,format=qcow2', cores: '2' }, delete: [], revert: [] }
  await run(world, configureGuest, { vmid, change })
  await run(world, snapshotGuest, { vmid, name: 'two' })

  await run(world, rollbackGuest, { vmid, name: 'one' })
  const { options } = await world.guests.config(vmid)
  assert.deepEqual(options, { ...before, parent: 'one', unused0: 'local:100/vm-100-disk-2.qcow2' })
  assert.equal(await lettersOf(world, first), 'A')
  assert.equal((await world.storage.describe(first)).sizeBytes, diskBytes)
})

test('snapshots follow one another, also when one between them is deleted', async () => {
  const { world, vmid } = await guestWithDisks()
  await using _ = world
  for (const name of ['one', 'two', 'three']) await run(world, snapshotGuest, { vmid, name })
  const parents = async () => {
    const { options, snapshots = {} } = await world.guests.config(vmid)
    return [options.parent, ...Object.entries(snapshots).map(([name, one]) => `${name}<${one.options.parent ?? ''}`)]
  }
  assert.deepEqual(await parents(), ['three', 'one<', 'two<one', 'three<two'])
  await run(world, deleteSnapshot, { vmid, name: 'two' })
  assert.deepEqual(await parents(), ['three', 'one<', 'three<one'])
  await run(world, deleteSnapshot, { vmid, name: 'three' })
  assert.deepEqual(await parents(), ['one', 'one<'])
  await run(world, rollbackGuest, { vmid, name: 'one' })
  await run(world, deleteSnapshot, { vmid, name: 'one' })
  assert.deepEqual(await parents(), [undefined])
})

test('a guest with a raw disk has no snapshots, in the words clients know', async () => {
  const { world, vmid } = await guestWithDisks('raw')
  await using _ = world
  const before = await look(world)
  await assert.rejects(run(world, snapshotGuest, { vmid, name: 'one' }), /^Fault: snapshot feature is not available$/)
  assert.deepEqual(await look(world), before)
})

test('names of snapshots: one each, and not the one that stands for now', async () => {
  const { world, vmid } = await guestWithDisks()
  await using _ = world
  await run(world, snapshotGuest, { vmid, name: 'one' })
  await assert.rejects(run(world, snapshotGuest, { vmid, name: 'one' }), /snapshot name 'one' already used/)
  await assert.rejects(run(world, snapshotGuest, { vmid, name: 'current' }), /reserved name/)
  await assert.rejects(run(world, rollbackGuest, { vmid, name: 'two' }), /snapshot 'two' does not exist/)
  await assert.rejects(run(world, deleteSnapshot, { vmid, name: 'two' }), /snapshot 'two' does not exist/)
})

test('a disk that a snapshot needs is not destroyed before the snapshot, and goes with the guest', async () => {
  const { world, vmid } = await guestWithDisks()
  await using _ = world
  await run(world, snapshotGuest, { vmid, name: 'one' })
  const configure = (names: string[], force: boolean) =>
    run(world, configureGuest, { vmid, force, change: { set: {}, delete: names, revert: [] } })
  await assert.rejects(configure(['virtio1'], true), /volume is still in use \(snapshot 'one'\)/)
  await configure(['virtio1'], false)
  await assert.rejects(configure(['unused0'], false), /volume is still in use/)
  await run(world, rollbackGuest, { vmid, name: 'one' })
  const { options } = await world.guests.config(vmid)
  assert.equal(options.unused0, undefined)
  assert.match(options.virtio1 ?? '', /vm-100-disk-1/)
  await run(world, destroyGuest, { vmid })
  assert.deepEqual(await world.filesOfStorage(), [])
})

test('memory kept apart lies on the storage it was given, and goes with the guest', async () => {
  const { world, vmid } = await guestWithDisks('qcow2', { vmstatestorage: 'local' })
  await using _ = world
  await world.guests.start(vmid)
  await run(world, snapshotGuest, { vmid, name: 'one', memory: true })
  const volume = 'local:100/vm-100-state-one.qcow2'
  const { snapshots = {} } = await world.guests.config(vmid)
  assert.equal(snapshots.one?.memory?.volume, volume)
  assert.ok((await world.filesOfStorage()).some((file) => file.endsWith('/vm-100-state-one.qcow2')))
  await run(world, rollbackGuest, { vmid, name: 'one' })
  assert.equal(await world.guests.isRunning(vmid), true)
  await world.guests.stop(vmid)
  await world.storage.free(asVolumeId(volume))
  await assert.rejects(run(world, rollbackGuest, { vmid, name: 'one' }), /vm-100-state-one\.qcow2' does not exist/)
  await run(world, deleteSnapshot, { vmid, name: 'one' })
  await world.guests.start(vmid)
  await run(world, snapshotGuest, { vmid, name: 'two', memory: true })
  await assert.rejects(
    world.guests
      .changeConfig(vmid, (options) => ({ ...options, vmstatestorage: 'gone' }))
      .then(() => run(world, snapshotGuest, { vmid, name: 'three', memory: true })),
    /storage 'gone' does not exist/,
  )
  await world.guests.stop(vmid)
  await run(world, destroyGuest, { vmid })
  assert.deepEqual(await world.filesOfStorage(), [])
})

test('a disk does not shrink, and its size is said by its configuration also while it runs', async () => {
  const { world, vmid } = await guestWithDisks('raw')
  await using _ = world
  await assert.rejects(
    run(world, resizeDisk, { vmid, disk: 'scsi0', size: '512K' }),
    /^Fault: shrinking disks is not supported$/,
  )
  await assert.rejects(run(world, resizeDisk, { vmid, disk: 'scsi7', size: '2M' }), /disk 'scsi7' does not exist/)
  await world.guests.start(vmid)
  await run(world, resizeDisk, { vmid, disk: 'scsi0', size: '+1M' })
  const { options, running } = await world.guests.config(vmid)
  assert.match(options.scsi0 ?? '', /size=2M/)
  assert.equal(running?.scsi0, options.scsi0)
  assert.equal((await world.storage.describe(volumeAt(options, 'scsi0'))).sizeBytes, 2 * diskBytes)
})
