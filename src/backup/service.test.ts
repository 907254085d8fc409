import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { deps, disk, memorySource, temporaryDatastore } from '../../test/fixtures/datastore.ts'
import { BackupService } from './service.ts'

const missing = (error: unknown) => isFault(error, 'missing')

test('backups are made, listed, annotated, verified and removed by volume id', async () => {
  await using temporary = await temporaryDatastore()
  const service = new BackupService({
    ...deps,
    host: machine(),
    storage: { datastorePath: async () => temporary.path },
  })
  const made: string[] = []
  for (const vmid of [100, 100, 101]) {
    const { volid, writer } = await service.begin('local', { vmid: asVmid(vmid) })
    await writer.addDisk('scsi0', memorySource(disk('r.')))
    await writer.commit({ name: `n${vmid}` }, { marks: { notes: `of ${vmid}` } })
    made.push(volid)
  }
  // Within one second the second gets the next one.
  assert.equal(new Set(made).size, 3)
  assert.match(made[0] ?? '', /^local:backup\/vm\/100\/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  assert.equal((await service.list({ storage: 'local' })).length, 3)
  const [first, second] = await service.list({ storage: 'local', vmid: 100 })
  assert.ok(first && second && first.ctime < second.ctime)
  assert.deepEqual([first.sizeBytes, first.notes, first.protected], [131_072, 'of 100', undefined])

  await service.annotate(first.volid, { protected: true })
  await assert.rejects(service.remove(first.volid), /is protected/)
  await service.annotate(first.volid, { notes: '', protected: false })
  assert.equal((await service.describe(first.volid)).notes, undefined)
  await service.verify(first.volid)
  await service.verifyAll('local')

  await service.remove(first.volid)
  await assert.rejects(service.open(first.volid), missing)
  await assert.rejects(service.annotate(first.volid, { notes: 'x' }), missing)
  await assert.rejects(service.remove(first.volid), missing)
  await assert.rejects(service.describe(first.volid), missing)
  assert.equal((await service.list({ storage: 'local', vmid: 100 })).length, 1)

  const path = join(temporary.path, 'backups', second.volid.slice('local:backup/'.length), 'manifest.json')
  await writeFile(path, 'nonsense')
  const [damaged] = await service.list({ storage: 'local', vmid: 100 })
  assert.match(damaged?.damage ?? '', /manifest of backup vm\/100\/.* is damaged/)
  await assert.rejects(service.describe(second.volid), (error) => isFault(error, 'damaged'))
})

test('a storage that never held a backup has none, and what is no backup is refused', async () => {
  const nowhere = '/nowhere/at/all'
  const service = new BackupService({ ...deps, host: machine(), storage: { datastorePath: async () => nowhere } })
  assert.deepEqual(await service.list({ storage: 'local' }), [])
  await assert.rejects(service.open(asVolumeId('local:backup/vm/100/2026-11-20T10:00:00Z')), missing)
  await assert.rejects(service.open(asVolumeId('local:iso/x.iso')), (error) => isFault(error, 'invalid'))
})

test('damage that a check found is seen by whoever lists the backups next, until a check finds none', async () => {
  await using temporary = await temporaryDatastore()
  const service = new BackupService({
    ...deps,
    host: machine(),
    storage: { datastorePath: async () => temporary.path },
  })
  const { volid, writer } = await service.begin('local', { vmid: asVmid(100) })
  await writer.addDisk('scsi0', memorySource(disk('r.')))
  await writer.commit({}, {})
  const listed = async () => (await service.list({ storage: 'local' }))[0]
  assert.equal((await listed())?.verified, undefined)

  const [pack] = await packsOf(temporary.path)
  assert.ok(pack)
  const good = await readFile(pack)
  await writeFile(
    pack,
    good.map((byte, at) => (at === Math.floor(good.length / 2) ? byte ^ 1 : byte)),
  )
  await assert.rejects(service.verify(volid), (error) => isFault(error, 'damaged'))
  assert.match((await listed())?.damage ?? '', /chunk [0-9a-f]{64}/)

  await writeFile(pack, good)
  await service.verify(volid)
  assert.equal((await listed())?.damage, undefined)
  assert.ok(((await listed())?.verified ?? 0) > 0)
})

async function packsOf(path: string): Promise<string[]> {
  const entries = await readdir(join(path, 'packs'), { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}
