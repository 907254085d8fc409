/** What a node of before has in its datastore is in an encrypted one afterwards, whatever came between. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { confirmedKeys } from '../../../test/fixtures/confirmed-keys.ts'
import { deps, filesBelow } from '../../../test/fixtures/datastore.ts'
import { backups, diskAt, repeated } from '../../../test/fixtures/first-format/content.ts'
import { unpackedDatastore, unpackInto } from '../../../test/fixtures/first-format/unpacked.ts'
import { restored, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { parsePoint } from '#datastore/point.ts'
import { BackupService } from '../service.ts'
import { FirstDatastore } from './datastore.ts'
import { requireAll, takeOver } from './take-over.ts'

async function fingerprint(path: string): Promise<string[]> {
  const files = (await filesBelow(path)).toSorted()
  return Promise.all(
    files.map(async (name) => {
      const digest = createHash('sha256').update(await readFile(join(path, name)))
      return `${name} ${digest.digest('hex')}`
    }),
  )
}

test('each backup comes over with its disks, files, tree, moment, notes and protection, and the old place stays', async () => {
  await using old = await unpackedDatastore()
  const before = await fingerprint(old.path)
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  assert.deepEqual(await takeOver(await FirstDatastore.open(old.path), open), { taken: 3, before: 0, damaged: [] })
  for (const [name, seconds] of [
    [backups.first, 0],
    [backups.second, 60],
  ] as const) {
    const point = parsePoint(name)
    assert.ok((await restored(open, point, 'scsi0')).equals(diskAt(seconds)))
    assert.ok((await restored(open, point, 'efidisk0')).equals(Buffer.alloc(4_096)))
    await using reader = await open.open(point)
    assert.equal((await reader.file('backup.log')).toString(), `backup at ${seconds}\n`)
    assert.deepEqual(reader.manifest.facts, { name: 'first', mode: 'snapshot', wasRunning: true })
    assert.equal(Date.parse(reader.manifest.pointInTime), (1_795_000_000 + seconds) * 1000 + 250)
    assert.equal(reader.manifest.finished, 1_795_000_100)
  }
  const marks = await open.datastore.marks(parsePoint(backups.second))
  assert.deepEqual([marks.notes, marks.protected], ['the second: Zweites, \u4e8c\u756a\u76ee', true])
  await using reader = await open.open(parsePoint(backups.container))
  const tree = reader.tree('rootfs')
  const contentOf = async (path: string) => {
    const parts: Buffer[] = []
    for await (const part of tree.content(await tree.entry(path))) parts.push(part)
    return Buffer.concat(parts)
  }
  assert.ok((await contentOf('etc/deep/large')).equals(repeated('large', 300_000)))
  assert.equal((await contentOf('etc/hostname')).toString(), 'first\n')
  const { uid, gid, mode, modified } = await tree.entry('etc/deep/large')
  assert.deepEqual([uid, gid, mode & 0o777, modified], [33, 34, 0o640, { seconds: 1_700_000_000, nanoseconds: 5e8 }])
  assert.equal((await tree.entry('link')).target, 'etc/hostname')
  assert.equal((await tree.entry('etc/same')).target, 'etc/hostname')
  assert.deepEqual(await fingerprint(old.path), before)
})

test('cut off, it goes on where it was; a second time there is nothing to do', async () => {
  await using old = await unpackedDatastore()
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  const first = await FirstDatastore.open(old.path)
  const stopped = new AbortController()
  const log = () => stopped.abort()
  await assert.rejects(takeOver(first, open, { log, signal: stopped.signal }), /interrupted/)
  assert.equal((await open.datastore.points()).length, 1)
  assert.deepEqual(await takeOver(first, open), { taken: 2, before: 1, damaged: [] })
  assert.deepEqual(await takeOver(first, open), { taken: 0, before: 3, damaged: [] })
})

test('a backup that is damaged where it was is named, and keeps none of the others', async () => {
  await using old = await unpackedDatastore()
  const index = join(old.path, 'backups', backups.first, 'scsi0.index')
  const bytes = await readFile(index)
  bytes.writeUInt8(bytes.readUInt8(40) ^ 1, 40)
  await writeFile(index, bytes)
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  const taken = await takeOver(await FirstDatastore.open(old.path), open)
  const named = (error: unknown) => isFault(error, 'damaged') && error.message.includes(backups.first)
  assert.throws(() => requireAll(taken), named)
  assert.equal((await open.datastore.points()).length, 2)
})

test('a node that finds such a datastore says what to do, does it, and then has those backups as before', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-node-'))
  try {
    const path = join(stateDir, 'datastore')
    await mkdir(path)
    await unpackInto(path)
    const keys = await confirmedKeys({ stateDir, node: 'lab' })
    const service = new BackupService({ ...deps, keys, storage: { datastorePath: async () => path } })
    const said = (error: unknown) => isFault(error, 'unavailable') && /hako backup take-over/.test(error.remedy ?? '')
    await assert.rejects(service.list({ storage: 'local' }), said)
    await assert.rejects(service.begin('local', { vmid: 100 as never }), said)
    const { from } = await service.takeOver('local')
    assert.ok(existsSync(join(from, 'format')))
    const volids = (await service.list({ storage: 'local' })).map(({ volid }) => volid)
    assert.deepEqual(
      volids,
      [backups.first, backups.container, backups.second].map((name) => `local:backup/${name}`),
    )
    for (const volid of volids) await service.verify(asVolumeId(volid))
    assert.equal((await service.takeOver('local')).taken, 0)
    // Power may be lost just when the new one is about to take the place of the old one.
    await rename(path, `${path}-new`)
    assert.equal((await service.list({ storage: 'local' })).length, 3)
  } finally {
    await rm(stateDir, { recursive: true })
  }
})
