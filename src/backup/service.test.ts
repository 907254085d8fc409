import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { openDatastore } from '#datastore/datastore.ts'
import { FolderPlace } from '#datastore/places/folder-place.ts'
import { confirmedKeys } from '../../test/fixtures/confirmed-keys.ts'
import { deps, disk, filesBelow, memorySource } from '../../test/fixtures/datastore.ts'
import { makeDatastore, recovery, secret } from '../../test/fixtures/sealed-datastore.ts'
import { NodeKeys } from './node-keys.ts'
import { BackupService } from './service.ts'

const missing = (error: unknown) => isFault(error, 'missing')

interface Node extends AsyncDisposable {
  readonly settings: { readonly stateDir: string; readonly node: string }
  /** Where the datastore of its storage `local` is, or will be. */
  readonly path: string
  readonly keys: NodeKeys
  readonly service: BackupService
}

/** Somebody has its recovery key, unless it is a new one. */
async function node({ isNew = false } = {}): Promise<Node> {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-node-'))
  const settings = { stateDir, node: 'lab' }
  const path = join(stateDir, 'datastore')
  const keys = isNew ? new NodeKeys({ settings, ...deps }) : await confirmedKeys(settings)
  const service = new BackupService({ ...deps, keys, storage: { datastorePath: async () => path } })
  const remove = () => rm(stateDir, { recursive: true, force: true })
  return { settings, path, keys, service, [Symbol.asyncDispose]: remove }
}

async function backUp(service: BackupService, vmid: number, content = disk('r.')): Promise<string> {
  const begun = await service.begin('local', { vmid: asVmid(vmid) })
  await using writer = begun.writer
  await writer.addDisk('scsi0', memorySource(content))
  await writer.commit({ facts: { name: `n${vmid}` }, marks: { notes: `of ${vmid}` } })
  return begun.volid
}

test('backups are made, listed, annotated, verified and removed by volume id', async () => {
  await using one = await node()
  const { service } = one
  const made: string[] = []
  for (const vmid of [100, 100, 101]) made.push(await backUp(service, vmid))
  // Within one second the second gets the next one.
  assert.equal(new Set(made).size, 3)
  assert.match(made[0] ?? '', /^local:backup\/vm\/100\/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  assert.equal((await service.list({ storage: 'local' })).length, 3)
  const [first, second] = await service.list({ storage: 'local', vmid: 100 })
  assert.ok(first && second && first.ctime < second.ctime)
  assert.deepEqual([first.sizeBytes, first.notes, first.protected], [131_072, 'of 100', undefined])
  assert.equal(first.manifest?.facts.name, 'n100')

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

  await writeFile(join(one.path, 'backups/_', second.volid.slice('local:backup/'.length)), 'nonsense')
  const [damaged] = await service.list({ storage: 'local', vmid: 100 })
  assert.match(damaged?.damage ?? '', /manifest of backup vm\/100\/.* is damaged/)
  await assert.rejects(service.describe(second.volid), (error) => isFault(error, 'damaged'))
})

test('of backups within one second the last made is the newest, though the first is removed meanwhile', async () => {
  await using one = await node()
  const clock = { ...deps.clock, now: () => 1_700_000_000_000 }
  const service = new BackupService({
    ...deps,
    clock,
    keys: one.keys,
    storage: { datastorePath: async () => one.path },
  })
  const made: string[] = []
  for (let round = 0; round < 4; round += 1) {
    made.push(await backUp(service, 100))
    if (round > 0) await service.remove(asVolumeId(made[round - 1] ?? ''))
    const [listed] = (await service.list({ storage: 'local', vmid: 100 })).toReversed()
    assert.equal(listed?.volid, made[round])
  }
  assert.deepEqual(made, made.toSorted())
  assert.equal(new Set(made).size, 4)
})

test('a storage that never held a backup has none, and what is no backup is refused', async () => {
  await using one = await node()
  const { service } = one
  assert.deepEqual(await service.list({ storage: 'local' }), [])
  await assert.rejects(service.open(asVolumeId('local:backup/vm/100/2026-11-20T10:00:00Z')), missing)
  await assert.rejects(service.open(asVolumeId('local:iso/x.iso')), (error) => isFault(error, 'invalid'))
})

test('damage that a check found is seen by whoever lists the backups next, until a check finds none', async () => {
  await using one = await node()
  const { service } = one
  const volid = asVolumeId(await backUp(service, 100, disk('rrr.')))
  const listed = async () => (await service.list({ storage: 'local' }))[0]
  assert.equal((await listed())?.verified, undefined)
  const [pack = ''] = await packsOfContent(one.path)
  const good = await readFile(pack)
  const broken = Buffer.from(good)
  // In the first and the last of three chunks.
  for (const offset of [100, 300_000]) broken.writeUInt8(broken.readUInt8(offset) ^ 1, offset)
  await writeFile(pack, broken)
  const both = (error: unknown) => isFault(error, 'damaged') && error.message.match(/chunk [0-9a-f]{32}/g)?.length === 2
  await assert.rejects(service.verify(volid), both)
  assert.match((await listed())?.damage ?? '', /pack [0-9a-f]{64} is damaged: chunk [0-9a-f]{32}/)
  await assert.rejects(service.verifyAll('local'), /pack [0-9a-f]{64} is damaged: .* \(hits vm\/100\//)
  await writeFile(pack, good)
  await service.verify(volid)
  assert.equal((await listed())?.damage, undefined)
  assert.ok(((await listed())?.verified ?? 0) > 0)
  await rm(pack)
  await assert.rejects(service.verifyAll('local'), /pack [0-9a-f]{64} is gone \(hits vm\/100\//)
})

test('nothing is backed up before somebody has confirmed the recovery key', async () => {
  await using one = await node({ isNew: true })
  const { service, keys } = one
  const refused = (error: unknown) => isFault(error, 'conflict') && /hako recovery-key create/.test(error.remedy ?? '')
  await assert.rejects(service.begin('local', { vmid: asVmid(100) }), refused)
  assert.deepEqual(await filesBelow(one.path).catch(() => []), [])
  await assert.rejects(keys.confirm('AAAAAAA'), /Parameter verification failed|recovery key/)
  const { key } = await keys.create({ replaces: false })
  await assert.rejects(service.requireReady('local'), refused)
  const { key: another } = await keys.create({ replaces: false })
  // The first one was shown to nobody who said so, and is forgotten.
  await assert.rejects(keys.confirm(key), /Parameter verification failed/)
  await keys.confirm(another.toLowerCase().replaceAll('-', ' '))
  await backUp(service, 100)
  // Nothing of it is kept but what locks.
  for (const file of await filesBelow(one.settings.stateDir)) {
    assert.ok(!(await readFile(join(one.settings.stateDir, file))).includes(another), file)
  }
})

test('the recovery key alone opens the datastores of a lost node, and another one takes its place everywhere', async () => {
  await using one = await node({ isNew: true })
  const { service, keys } = one
  const first = await keys.create({ replaces: false })
  await keys.confirm(first.key)
  await backUp(service, 100)
  const opensBy = async (text: string) => {
    await using place = new FolderPlace(one.path, deps.random)
    return (await (await openDatastore(place, deps)).keys({ kind: 'recovery', text })).slot.confirmed
  }
  assert.equal(await opensBy(first.key), true)
  await assert.rejects(keys.create({ replaces: false }), /somebody has confirmed it/)
  const second = await keys.create({ replaces: true })
  // Until it is confirmed the one before holds.
  await service.keepWays('local')
  assert.equal(await opensBy(first.key), true)
  await keys.confirm(second.key)
  assert.equal(await service.keepWays('local'), true)
  await assert.rejects(opensBy(first.key), /does not open/)
  assert.equal(await opensBy(second.key), true)
  await backUp(service, 100)
  assert.equal((await service.list({ storage: 'local' })).length, 2)
})

test('a datastore somebody else made is opened once they have let the node in', async () => {
  await using one = await node()
  const { service } = one
  await using foreign = await makeDatastore(one.path)
  const locked = (error: unknown) => isFault(error, 'unavailable') && /hako backup attach/.test(error.remedy ?? '')
  await assert.rejects(service.list({ storage: 'local' }), locked)
  await assert.rejects(service.begin('local', { vmid: asVmid(100) }), locked)
  await assert.rejects(service.attach('local', { kind: 'key', key: Buffer.alloc(32, 1) }), /does not open/)
  await service.attach('local', recovery)
  await service.attach('local', secret)
  await backUp(service, 100)
  const { slots } = await (await foreign.reopen()).datastore.keyFile()
  assert.deepEqual(slots.map(({ kind }) => kind).toSorted(), ['key', 'key', 'recovery', 'recovery'])
})

test('of several processes that are the first to need a datastore all use the same', async () => {
  await using one = await node()
  const volids = await Promise.all([100, 101, 102, 103].map((vmid) => backUp(one.service, vmid)))
  assert.equal((await one.service.list({ storage: 'local' })).length, volids.length)
  for (const volid of volids) await one.service.verify(asVolumeId(volid))
})

test('a removed backup gives its space back', async () => {
  await using one = await node()
  const volid = asVolumeId(await backUp(one.service, 100, disk('rrrr')))
  await one.service.remove(volid)
  await one.service.collect('local')
  assert.deepEqual(await filesBelow(join(one.path, 'packs')), [])
})

async function packsOfContent(path: string): Promise<string[]> {
  const paths = (await filesBelow(join(path, 'packs'))).map((name) => join(path, 'packs', name))
  const read = await Promise.all(paths.map(async (file) => ({ file, bytes: await readFile(file) })))
  return read.filter(({ bytes }) => bytes.readUInt32LE(12) === 0).map(({ file }) => file)
}
