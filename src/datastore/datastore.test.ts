import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { KiB, MiB } from '#base/bytes.ts'
import { systemRandom } from '#base/random.ts'
import { disk, memorySource } from '../../test/fixtures/datastore.ts'
import { backUp, point, restored, secret, temporaryDatastore } from '../../test/fixtures/sealed-datastore.ts'
import { openDatastore } from './datastore.ts'
import { FolderPlace } from './places/folder-place.ts'
import { collectGarbage } from './collect/garbage.ts'
import { repairIndex } from './tidy/repair.ts'
import { printRecoveryKey } from './keys/slot.ts'
import { syncDatastore } from './copy/sync.ts'
import { verifyBackup, verifyIndex, verifyPacks } from './verify/verify.ts'

const chunk = 128 * KiB

async function filesBelow(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

test('what was backed up comes back bit for bit, also at the odd end of a disk', async () => {
  await using temporary = await temporaryDatastore()
  const content = Buffer.concat([disk('rt..r0t.....'), Buffer.from('the odd end')])
  await backUp(await temporary.reopen(), point(0), { scsi0: content, efidisk0: disk('.') })
  const open = await temporary.reopen()
  assert.ok((await restored(open, point(0), 'scsi0')).equals(content))
  assert.ok((await restored(open, point(0), 'efidisk0')).equals(Buffer.alloc(chunk)))
  await using reader = await open.open(point(0))
  assert.equal((await reader.file('guest.conf')).toString(), 'name: one\n')
  assert.equal((await verifyBackup(open, point(0))).chunks, 6)
})

test('random disks in chunks of every size come back, backup after backup', async () => {
  for (const chunkBytes of [64 * KiB, 128 * KiB, 256 * KiB]) {
    await using temporary = await temporaryDatastore({ chunkBytes })
    let time = 0
    const plan = fc.array(fc.constantFrom('r', 't', '.', '0'), { minLength: 1, maxLength: 12 })
    await fc.assert(
      fc.asyncProperty(plan, fc.nat(70_000), async (letters, odd) => {
        const content = Buffer.concat([disk(`r${letters.join('')}`), randomBytes(odd)])
        time += 1
        await backUp(await temporary.reopen(), point(time), { scsi0: content })
        assert.ok((await restored(await temporary.reopen(), point(time), 'scsi0')).equals(content))
      }),
      { numRuns: 6 },
    )
  }
})

test('what is there already is not stored again, whoever stored it', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrrrrrr')
  const first = await backUp(await temporary.reopen(), point(0), { scsi0: content })
  const again = await backUp(await temporary.reopen(), point(1), { scsi0: content })
  const sibling = await backUp(await temporary.reopen(), point(2, '101'), { scsi0: content })
  assert.equal(first.disks[0]?.newChunks, 8)
  assert.equal(again.disks[0]?.newChunks, 0)
  assert.equal(sibling.disks[0]?.newChunks, 0)
  assert.equal(again.disks[0]?.digest, first.disks[0]?.digest)
})

test('nothing of the content, nor its name, can be read without the keys', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  await using writer = await open.begin(point(0))
  const secretText = 'the merger is on friday '
  await writer.addDisk('scsi0', memorySource(Buffer.from(secretText.repeat(20_000))))
  await writer.addFile('guest.conf', 'name: payroll-of-example\n')
  await writer.commit({ facts: { name: 'payroll-of-example' } })
  for (const path of await filesBelow(temporary.path)) {
    const content = await readFile(path)
    assert.ok(!content.includes('merger') && !content.includes('payroll'), path)
  }
})

test('a small change of a large map stores the change, and a chain of changes still reads', async () => {
  await using temporary = await temporaryDatastore()
  // Long enough for a map whose whole piece is well above what changes: 2,000 chunks of which few are not zero.
  const content = Buffer.alloc(2_000 * chunk)
  for (let at = 0; at < 2_000; at += 4) content.set(randomBytes(64), at * chunk)
  const stored: number[] = []
  for (let time = 0; time < 20; time += 1) {
    content.set(randomBytes(64), ((time * 37) % 2_000) * chunk)
    const body = await backUp(await temporary.reopen(), point(time), { scsi0: content })
    stored.push(body.disks[0]?.newChunks ?? 0)
  }
  assert.deepEqual(
    stored.slice(1).map((count) => count <= 1),
    Array.from({ length: 19 }, () => true),
  )
  const open = await temporary.reopen()
  assert.ok((await restored(open, point(19), 'scsi0')).equals(content))
  for (let time = 0; time < 20; time += 5) await verifyBackup(open, point(time))
})

test('removed backups give their space back, and what others need stays', async () => {
  await using temporary = await temporaryDatastore()
  const shared = disk('rrrr')
  const own = randomBytes(40 * MiB)
  await backUp(await temporary.reopen(), point(0), { scsi0: Buffer.concat([shared, own]) })
  await backUp(await temporary.reopen(), point(1), { scsi0: shared })
  const before = (await verifyPacks((await temporary.reopen()).datastore)).bytes
  const open = await temporary.reopen()
  await open.datastore.remove(point(0))
  const collected = await collectGarbage(open)
  const after = (await verifyPacks(open.datastore)).bytes
  assert.ok(after < before / 20, `${before} → ${after}`)
  assert.ok(collected.freedBytes > 39 * MiB && collected.rewrittenPacks > 0, JSON.stringify(collected))
  assert.ok((await restored(await temporary.reopen(), point(1), 'scsi0')).equals(shared))
  const again = await collectGarbage(await temporary.reopen())
  assert.deepEqual([again.condemnedChunks, again.removedPacks, again.chunks], [0, 0, again.liveChunks])
})

test('nothing that a writer may rely on is collected beside it, and all of it later', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrrrr')
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  const collector = await temporary.reopen()
  await using writer = await (await temporary.reopen()).begin(point(1))
  await collector.datastore.remove(point(0))
  const first = await collectGarbage(collector)
  assert.equal(first.removedPacks, 0)
  assert.match(first.waitsFor ?? '', /a backup that is being made/)
  // Began before the chunks were condemned: it finds them, and they are still there when it is done.
  const disks = await writer.addDisk('scsi0', memorySource(content))
  assert.equal(disks.newChunks, 0)
  await writer.commit()
  const second = await collectGarbage(collector)
  assert.ok(second.liveChunks > 6)
  assert.ok((await restored(await temporary.reopen(), point(1), 'scsi0')).equals(content))
})

test('a writer that begins after chunks were condemned stores them itself', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrrrr')
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  const collector = await temporary.reopen()
  await collector.datastore.remove(point(0))
  await collectGarbage(collector, { graceSeconds: 3_600 })
  const body = await backUp(await temporary.reopen(), point(1), { scsi0: content })
  assert.equal(body.disks[0]?.newChunks, 6)
  await collectGarbage(await temporary.reopen())
  assert.ok((await restored(await temporary.reopen(), point(1), 'scsi0')).equals(content))
})

test('a reader goes on while packs are written anew below it', async () => {
  await using temporary = await temporaryDatastore()
  const kept = randomBytes(6 * MiB)
  await backUp(await temporary.reopen(), point(0), { scsi0: Buffer.concat([kept, randomBytes(20 * MiB)]) })
  await backUp(await temporary.reopen(), point(1), { scsi0: kept })
  const open = await temporary.reopen()
  await using reader = await open.open(point(1))
  const parts = reader.runs('scsi0')
  const first = await parts.next()
  const collector = await temporary.reopen()
  await collector.datastore.remove(point(0))
  assert.ok((await collectGarbage(collector)).rewrittenPacks > 0)
  const found = Buffer.alloc(kept.length)
  for (let run = first; !run.done; run = await parts.next()) {
    for (const { offset, content } of await run.value()) content.copy(found, offset)
  }
  assert.ok(found.equals(kept))
})

test('a damaged pack is found without a key, hits the backup that needs it, and the next backup mends it', async () => {
  for (const which of ['content', 'maps']) {
    await using temporary = await temporaryDatastore()
    const content = disk('rrrr')
    await backUp(await temporary.reopen(), point(0), { scsi0: content })
    const packs = await filesBelow(join(temporary.path, 'packs'))
    const contents = await Promise.all(packs.map(async (path) => ({ path, bytes: await readFile(path) })))
    const pack = contents.find(({ bytes }) => bytes.readUInt32LE(12) === (which === 'maps' ? 1 : 0))
    assert.ok(pack)
    pack.bytes.writeUInt8(pack.bytes.readUInt8(60) ^ 1, 60)
    await writeFile(pack.path, pack.bytes)
    const open = await temporary.reopen()
    assert.deepEqual((await verifyPacks(open.datastore)).damaged, [basename(pack.path)])
    await assert.rejects(verifyBackup(open, point(0)), new RegExp(`pack ${basename(pack.path)} is damaged`))
    const [listed] = await open.datastore.list()
    assert.match(listed?.damage ?? '', /is damaged/)
    await backUp(await temporary.reopen(), point(1), { scsi0: content })
    const mended = await temporary.reopen()
    for (const one of [point(0), point(1)]) assert.ok((await restored(mended, one, 'scsi0')).equals(content), which)
    await verifyBackup(mended, point(0))
  }
})

test('a copy is made without a key, goes on where it was, and restores by itself', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrrrrrr')
  await backUp(await temporary.reopen(), point(0, '100', 'office'), { scsi0: content })
  await backUp(await temporary.reopen(), point(0, '101', 'shop'), { scsi0: disk('rr') })
  const source = (await temporary.reopen()).datastore
  const path = await mkdtemp(join(tmpdir(), 'hako-copy-'))
  try {
    await using place = new FolderPlace(path, systemRandom)
    await place.prepare()
    const stopped = new AbortController()
    const onProgress = () => stopped.abort()
    await assert.rejects(
      syncDatastore(source, place, source.deps, { signal: stopped.signal, onProgress }),
      /interrupted/,
    )
    const first = await syncDatastore(source, place, source.deps, { namespace: 'office' })
    assert.equal(first.backups, 1)
    const again = await syncDatastore(source, place, source.deps)
    assert.deepEqual([again.backups, again.packs], [1, 0])
    const copy = await (await openDatastore(place, source.deps)).unlock(secret)
    assert.ok((await restored(copy, point(0, '100', 'office'), 'scsi0')).equals(content))
    // Both live on: what is removed at the source stays in the copy, unless it is asked to go.
    await source.remove(point(0, '100', 'office'))
    await collectGarbage(await temporary.reopen())
    assert.equal((await syncDatastore(source, place, source.deps)).removed, 0)
    assert.equal((await copy.datastore.points()).length, 2)
    assert.equal((await syncDatastore(source, place, source.deps, { removesVanished: true })).removed, 1)
    await verifyBackup(copy, point(0, '101', 'shop'))
    await backUp(copy, point(1, '100', 'office'), { scsi0: content })
    assert.ok((await restored(copy, point(1, '100', 'office'), 'scsi0')).equals(content))
    await using other = await temporaryDatastore()
    await assert.rejects(syncDatastore((await other.reopen()).datastore, place, source.deps), /is no copy of/)
  } finally {
    await rm(path, { recursive: true })
  }
})

test('a backup made after the clock was set back takes nothing from the one it is based on', async () => {
  await using temporary = await temporaryDatastore()
  const [before, after] = [disk('rrrrrr'), disk('rrrrrr')]
  before.copy(after, 0, 0, before.length / 2)
  await backUp(await temporary.reopen(), point(10), { scsi0: before })
  await backUp(await temporary.reopen(), point(5), { scsi0: after })
  await collectGarbage(await temporary.reopen())
  assert.ok((await restored(await temporary.reopen(), point(10), 'scsi0')).equals(before))
  assert.ok((await restored(await temporary.reopen(), point(5), 'scsi0')).equals(after))
})

test('a lost index is made anew from the packs', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrrrr')
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  await rm(join(temporary.path, 'segments'), { recursive: true })
  const open = await temporary.reopen()
  const { damaged, chunks } = await repairIndex(open)
  assert.deepEqual(damaged, [])
  assert.equal((await collectGarbage(open)).liveChunks, chunks)
  await verifyBackup(open, point(0))
  assert.ok((await restored(await temporary.reopen(), point(0), 'scsi0')).equals(content))
})

test('a changed byte of the index is found by who has the keys', async () => {
  await using temporary = await temporaryDatastore()
  await backUp(await temporary.reopen(), point(0), { scsi0: disk('rrrr') })
  assert.deepEqual(await verifyIndex(await temporary.reopen()), [])
  const [path = ''] = await filesBelow(join(temporary.path, 'segments'))
  const bytes = await readFile(path)
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 40) ^ 1, bytes.length - 40)
  await writeFile(path, bytes)
  const [damage = ''] = await verifyIndex(await temporary.reopen())
  assert.match(damage, /segments\/[0-9a-f]{64} is damaged: it is not what was written/)
})

test('a protected backup is not removed, and says why', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  await backUp(open, point(0), { scsi0: disk('r') })
  await open.datastore.mark(point(0), { protected: true, notes: 'before the update' })
  await assert.rejects(open.datastore.remove(point(0)), /vm\/100\/.* is protected/)
  const [listed] = await open.datastore.list()
  assert.equal(listed?.marks.notes, 'before the update')
})

test('a manifest under another name, or by another hand, is refused', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  await backUp(open, point(0), { scsi0: disk('r') })
  const folder = join(temporary.path, 'backups/_/vm/100')
  const [name = ''] = await readdir(folder)
  await writeFile(join(folder, '2030-01-01T00:00:00Z'), await readFile(join(folder, name)))
  const forged = (await open.datastore.list()).find(({ damage }) => damage !== undefined)
  assert.match(forged?.damage ?? '', /is that of vm\/100/)
  await using other = await temporaryDatastore()
  await backUp(await other.reopen(), point(5), { scsi0: disk('r') })
  const foreign = join(other.path, 'backups/_/vm/100')
  const [theirs = ''] = await readdir(foreign)
  await writeFile(join(folder, theirs), await readFile(join(foreign, theirs)))
  await assert.rejects(open.open(point(5)), /not signed by this datastore/)
})

test('without its keys a datastore is of no use, and says so', async () => {
  await using temporary = await temporaryDatastore()
  await rm(join(temporary.path, 'keys'), { recursive: true })
  await assert.rejects(temporary.reopen(), /has no keys/)
})

test('a reader that knows the description of the format alone restores every backup', async () => {
  await using temporary = await temporaryDatastore()
  const content = Buffer.concat([disk('rt..r0t.....'), Buffer.alloc(5_000 * chunk), disk('rr'), Buffer.from('odd')])
  for (let time = 0; time < 4; time += 1) {
    content.set(randomBytes(100), time * chunk)
    await backUp(await temporary.reopen(), point(time, '100', 'office.servers'), {
      scsi0: content,
      efidisk0: disk('.'),
    })
  }
  const out = await mkdtemp(join(tmpdir(), 'hako-rescued-'))
  try {
    const program = join(import.meta.dirname, '../../docs/formats/read-datastore-v2.ts')
    const read = (...args: readonly string[]) =>
      spawnSync(process.execPath, [program, temporary.path, ...args], {
        input: `${printRecoveryKey(Buffer.alloc(32, 9))}\n`,
      })
    const names = read('list').stdout.toString().trim().split('\n').toSorted()
    assert.equal(names.length, 4)
    for (const [part, wanted] of [
      ['scsi0', content],
      ['efidisk0', disk('.')],
      ['guest.conf', Buffer.from('name: one\n')],
    ] as const) {
      const { status, stderr } = read('restore', names.at(-1) ?? '', part, join(out, part))
      assert.equal(status, 0, stderr.toString())
      assert.ok((await readFile(join(out, part))).equals(wanted), part)
    }
    const wrong = spawnSync(process.execPath, [program, temporary.path, 'show', names[0] ?? ''], { input: 'guess\n' })
    assert.equal(wrong.status, 1)
    assert.match(wrong.stderr.toString(), /neither passphrase nor recovery key/)
  } finally {
    await rm(out, { recursive: true })
  }
})
