/**
 * A snapshot of a running guest that is partly QEMU's and partly the storage's: whatever fails, there is all of it or
 * none, and the guest goes on.
 */
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { GiB } from '#base/bytes.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { type BtrfsDisk, btrfsDisk } from '../../../test/fixtures/btrfs-disk.ts'
import { addDisk, depsOf, look } from '../../../test/guest/disk-world.ts'
import { guestWorld } from '../../../test/guest/qemu-world.ts'
import { snapshotGuest } from './snapshot.ts'

let disk: BtrfsDisk
before(async () => {
  disk = await btrfsDisk(GiB)
})
after(() => disk[Symbol.asyncDispose]())

let worlds = 0

/** A guest that runs, with a raw and a qcow2 disk. */
async function running() {
  const world = await guestWorld({ forgetful: true })
  const path = join(disk.path, String((worlds += 1)))
  await mkdir(path)
  await symlink(path, join(world.settings.stateDir, 'storage'))
  await world.storage.create({ storage: 'local', type: 'btrfs', path, content: 'images' })
  const [raw, qcow2] = [await addDisk(world, 100, 'raw', 'A'), await addDisk(world, 100, 'qcow2', 'B')]
  const vmid = await world.define(100, {
    scsihw: 'virtio-scsi-pci',
    scsi0: `${raw},size=1M`,
    virtio1: `${qcow2},size=1M`,
    vmstatestorage: 'local',
  })
  await world.guests.start(vmid)
  return {
    params: { vmid: 100, name: 'one', memory: true } as never,
    deps: depsOf(world),
    look: async () => ({ ...(await look(world)), ofRaw: await (await world.storage.snapshots(raw)).list() }),
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  }
}

everyStepFails(snapshotGuest, running, { withCrashes: false })
