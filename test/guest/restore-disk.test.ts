/** One disk of a backup comes back to a guest that has others, and to one that runs. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { restoreDiskOfGuest, type RestoreDiskOfGuest } from '#operations/guest/restore-disk.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { volumeIn } from '#guests/qemu/drive.ts'
import { type BackupWorld, backupWorld, task } from './backup-world.ts'

const host = machine()

async function worldWithTwoDisks(): Promise<BackupWorld> {
  const world = await backupWorld()
  const disks: Record<string, string> = { name: 'web', scsihw: 'virtio-scsi-pci' }
  for (const [drive, format, letter] of [
    ['scsi0', 'raw', '1'],
    ['scsi1', 'qcow2', '2'],
  ] as const) {
    const volid = await world.storage.allocate({ storage: 'local', vmid: world.id(100), sizeBytes: 2 * MiB, format })
    await fill(world, volid, letter)
    disks[drive] = `${volid},size=2M${drive === 'scsi1' ? ',iothread=1,discard=on' : ''}`
  }
  await world.define(100, disks)
  return world
}

async function fill(world: BackupWorld, volid: string, letter: string): Promise<void> {
  const { path, format } = await world.storage.location(asVolumeId(volid))
  await host.run(['qemu-io', '-f', format, '-c', `write -P ${letter} 0 2M`, path])
}

/** Whether all of it is that letter. */
async function holds(world: BackupWorld, volid: string | undefined, letter: string): Promise<boolean> {
  const { path, format } = await world.storage.location(asVolumeId(volid ?? ''))
  const { stdout } = await host.run(['qemu-io', '-f', format, '-c', `read -P ${letter} 0 2M`, path])
  return !stdout.includes('Pattern verification failed')
}

function run({ deps }: BackupWorld, params: Omit<RestoreDiskOfGuest, 'vmid'> & { vmid?: number }) {
  const say = () => {}
  return perform(restoreDiskOfGuest, { vmid: 100, ...params }, deps, memoryJournal(), { task, log: say, warn: say })
}

const optionsOf = async (world: BackupWorld) => (await world.guests.config(world.id(100))).options
const at = (options: Readonly<Record<string, string>>, name: string) => volumeIn(name, options[name] ?? '')

test('a disk comes back beside the others, also to a guest that runs, and nothing else changes', async () => {
  await using world = await worldWithTwoDisks()
  const [archive = ''] = await world.run({ vmids: [100] })
  const before = await optionsOf(world)
  await fill(world, at(before, 'scsi1') ?? '', '3')
  await world.guests.start(world.id(100))
  await run(world, { archive, disk: 'scsi1' })
  await assert.rejects(run(world, { archive, disk: 'scsi1', drive: 'scsi2' }), /cannot be restored while VM 100 runs/)
  await world.guests.stop(world.id(100))
  const { unused0, ...others } = await optionsOf(world)
  assert.deepEqual(others, before)
  assert.ok(await holds(world, unused0, '2'))
  assert.ok(await holds(world, at(others, 'scsi1'), '3'))
  assert.ok(await holds(world, at(others, 'scsi0'), '1'))
})

test('a disk takes the place of one, with the options of that one, which is unused then', async () => {
  await using world = await worldWithTwoDisks()
  const [archive = ''] = await world.run({ vmids: [100] })
  const before = await optionsOf(world)
  await fill(world, at(before, 'scsi1') ?? '', '3')
  await run(world, { archive, disk: 'scsi1', drive: 'scsi1' })
  const after = await optionsOf(world)
  assert.equal(after.unused0, at(before, 'scsi1'))
  assert.match(after.scsi1 ?? '', /,size=2M,discard=on,iothread=1$/)
  assert.ok(await holds(world, at(after, 'scsi1'), '2'))
  assert.ok(await holds(world, after.unused0, '3'))
  assert.equal(after.scsi0, before.scsi0)
  // In a place that is free it is what it was in the backup.
  await run(world, { archive, disk: 'scsi1', drive: 'scsi5' })
  assert.match((await optionsOf(world)).scsi5 ?? '', /,size=2M,discard=on,iothread=1$/)
  await run(world, { archive, disk: 'scsi0', drive: 'virtio0' })
  assert.ok(await holds(world, at(await optionsOf(world), 'virtio0'), '1'))
  await world.guests.start(world.id(100))
})

test('another guest may get it, and what is not there is named', async () => {
  await using world = await worldWithTwoDisks()
  const [archive = ''] = await world.run({ vmids: [100] })
  await world.define(101, { name: 'other' })
  await run(world, { archive, disk: 'scsi0', vmid: 101 })
  const { unused0 } = (await world.guests.config(world.id(101))).options
  assert.match(unused0 ?? '', /^local:101\//)
  assert.ok(await holds(world, unused0, '1'))
  const refuses = async (field: string, why: RegExp, params: Omit<RestoreDiskOfGuest, 'vmid'>) =>
    assert.rejects(run(world, params), (fault) => isFault(fault, 'invalid') && why.test(fault.fields?.[field] ?? ''))
  await refuses('disk', /^the backup holds scsi0, scsi1, not 'scsi7'$/, { archive, disk: 'scsi7' })
  await refuses('drive', /^'net0' is no drive/, { archive, disk: 'scsi0', drive: 'net0' })
  await refuses('drive', /^'efidisk0' holds what the firmware keeps/, { archive, disk: 'scsi0', drive: 'efidisk0' })
  const foreign = 'local:backup/vzdump-qemu-100-2026_01_01-00_00_00.vma.zst'
  await refuses('archive', /^only from a backup of a datastore/, { archive: foreign, disk: 'scsi0' })
  await assert.rejects(run(world, { archive, disk: 'scsi0', vmid: 102 }), /102.conf' does not exist/)
})
