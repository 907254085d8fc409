/** What a node does for its datastores by itself: damage of any kind of file is found, and comes back from a copy. */
import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { asVmid } from '#base/ids.ts'
import { confirmedKeys } from '../../test/fixtures/confirmed-keys.ts'
import { deps, disk, filesBelow, memorySource } from '../../test/fixtures/datastore.ts'
import { BackupService } from './service.ts'
import { DatastoreUpkeep } from './upkeep.ts'

test('whatever is damaged or gone comes back from the copy, and the index from the packs', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-node-'))
  try {
    const pathOf = (storage: string) => join(stateDir, storage)
    const storage = { datastorePath: async (name: string) => pathOf(name) }
    const needs = { ...deps, keys: await confirmedKeys({ stateDir, node: 'lab' }), storage }
    const [service, upkeep] = [new BackupService(needs), new DatastoreUpkeep(needs)]
    const volids: string[] = []
    for (const vmid of [100, 101]) {
      const { writer, volid } = await service.begin('local', { vmid: asVmid(vmid) })
      await using _writer = writer
      await writer.addDisk('scsi0', memorySource(disk('rr')))
      await writer.commit()
      volids.push(volid)
    }
    await upkeep.sync('local', 'copy', {})
    const local = pathOf('local')
    const flip = async (name: string) => {
      const bytes = await readFile(join(local, name))
      const at = Math.floor(bytes.length / 2)
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
      await writeFile(join(local, name), bytes)
    }
    const [manifest = ''] = await filesBelow(join(local, 'backups'))
    const [keys = ''] = await readdir(join(local, 'keys'))
    const [pack = ''] = await filesBelow(join(local, 'packs'))
    const [part = ''] = await readdir(join(local, 'segments'))
    const opening = [`keys/${keys}`, 'format']
    for (const name of [`backups/${manifest}`, `packs/${pack}`, ...opening]) await flip(name)
    await rm(join(local, 'segments', part))
    await assert.rejects(upkeep.roll('local', {}), /'format' of the datastore '\S+' is damaged/)
    const { hit, fetched, lost, mended } = await upkeep.roll('local', { replica: 'copy' })
    assert.deepEqual(fetched.toSorted(), [`backups/${manifest}`, ...opening, `packs/${pack}`].toSorted())
    assert.ok(hit.includes(manifest.replace(/^_\//, '')), hit.join())
    assert.deepEqual(lost, [])
    assert.match(mended.join(), /a part of the index is lost/)
    for (const volid of volids) await service.verify(volid as never)
    const again = await upkeep.roll('local', { replica: 'copy' })
    assert.deepEqual([again.hit, again.fetched, again.lost, again.mended], [[], [], [], []])
    // Without a copy what is damaged is named with the backup it is of.
    await flip(`backups/${manifest}`)
    const alone = await upkeep.roll('local', {})
    assert.deepEqual(alone.lost, [`backups/${manifest}`])
    assert.deepEqual(alone.hit, [manifest.replace(/^_\//, '')])
  } finally {
    await rm(stateDir, { recursive: true })
  }
})
