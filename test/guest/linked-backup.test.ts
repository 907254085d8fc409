/** Backups of linked clones hold the whole disk, whoever the content belongs to. */
import assert from 'node:assert/strict'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { restoreDisk } from '#datastore/restore/restore-disk.ts'
import { asVolumeId } from '#base/ids.ts'
import { addDisk, backupWorld, contentOf } from './backup-world.ts'

test('a linked clone is backed up whole, stopped and running', async () => {
  await using world = await backupWorld()
  const disk = await addDisk(world, 100, 'raw', 4 * 1024 * 1024)
  const vmid = await world.define(101)
  await world.define(100, { virtio0: disk })
  const wanted = await contentOf(world, world.id(100), 'virtio0')
  const linked = await world.storage.link(await world.storage.freeze(disk), vmid)
  await world.guests.changeConfig(vmid, (options) => ({ ...options, virtio0: linked }))
  for (const isRunning of [false, true]) {
    if (isRunning) await world.guests.start(vmid)
    const [volid = ''] = await world.run({ vmids: [101] })
    await using reader = await world.backup.open(asVolumeId(volid))
    const path = join(world.settings.stateDir, `restored-${isRunning}.raw`)
    await (await open(path, 'wx')).close()
    await restoreDisk(reader, 'virtio0', path)
    assert.ok((await readFile(path)).equals(wanted), isRunning ? 'running' : 'stopped')
  }
})
