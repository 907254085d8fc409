/**
 * The contract every place keeps, and what a datastore does wherever it lies.
 *
 * A place's own test calls `placeConformance(name, fresh)`; `fresh` says where nothing is yet, in words another process
 * can open it by as well.
 */
import assert from 'node:assert/strict'
import { createHash, randomBytes, randomInt } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { inTurns } from '#base/in-turns.ts'
import { systemClock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { openPlace, type PlaceSpec } from '../../../test/fixtures/any-place.ts'
import { deps, disk } from '../../../test/fixtures/datastore.ts'
import { killAfter } from '../../../test/fixtures/kill-after.ts'
import { readAlone } from '../../../test/fixtures/read-alone.ts'
import { backUp, makeDatastoreIn, point, recovery, restored, secret } from '../../../test/fixtures/sealed-datastore.ts'
import { contentAt } from '../../../test/fixtures/seeded-disk.ts'
import { openDatastore } from '../datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { leaseSeconds } from './lease.ts'
import { syncDatastore } from '../copy/sync.ts'
import { verifyBackup, verifyIndex, verifyPacks } from '../verify/verify.ts'

const program = join(import.meta.dirname, '../../../test/fixtures/sealed-loop.ts')
/** A look at a time when every lease of the dead is over. */
const later = { ...deps, clock: { ...systemClock, now: () => systemClock.now() + (leaseSeconds + 1) * 1000 } }

export function placeConformance(name: string, fresh: () => Promise<PlaceSpec>): void {
  suite(`a datastore in ${name}`, () => {
    objectRules(fresh)
    datastoreRules(fresh)
    faultRules(fresh)
  })
}

async function namesIn(place: Awaited<ReturnType<typeof openPlace>>, folder: string): Promise<string[]> {
  const names: string[] = []
  for await (const { name } of place.list(folder)) names.push(name)
  return names.toSorted()
}

function objectRules(fresh: () => Promise<PlaceSpec>): void {
  test('what is put is there, whole and in parts; a name that is taken stays as it is', async () => {
    const spec = await fresh()
    await using place = await openPlace(spec)
    const content = randomBytes(300_000)
    assert.equal(await place.get('marks/a', 100), undefined)
    assert.equal(await place.put('keys/00000001', content), true)
    assert.equal(await place.put('keys/00000001', randomBytes(10)), false)
    assert.ok((await place.get('keys/00000001', 300_000))?.equals(content))
    assert.ok((await place.read('keys/00000001', 1_000, 5)).equals(content.subarray(1_000, 1_005)))
    assert.equal(await place.sizeOf('keys/00000001'), 300_000)
    assert.deepEqual(await namesIn(place, 'keys/'), ['keys/00000001'])
    await assert.rejects(place.get('keys/00000001', 1_000), (fault) => isFault(fault, 'too-large'))
    await assert.rejects(place.read('keys/00000001', 299_990, 20), (fault) => isFault(fault, 'damaged'))
    await assert.rejects(place.read('keys/00000002', 0, 20), (fault) => isFault(fault, 'missing'))
    await assert.rejects(place.sizeOf('keys/00000002'), (fault) => isFault(fault, 'missing'))
    await place.replace('marks/_/vm/1/a', Buffer.from('one'))
    await place.replace('marks/_/vm/1/a', Buffer.from('two'))
    assert.equal(String(await place.get('marks/_/vm/1/a', 100)), 'two')
    await using other = await openPlace(spec)
    assert.equal(String(await other.get('marks/_/vm/1/a', 100)), 'two')
    await other.replace('marks/_/vm/1/a', Buffer.from('three'))
    assert.equal(String(await place.get('marks/_/vm/1/a', 100)), 'three')
    assert.equal(String(await place.read('marks/_/vm/1/a', 1, 4)), 'hree')
    await place.replace('marks/_/vm/1/a', Buffer.from('four'))
    for (const one of [place, other]) assert.equal(String(await one.read('marks/_/vm/1/a', 0, 4)), 'four')
    assert.equal(await place.put('suspects/a', Buffer.alloc(0)), true)
    assert.deepEqual(await place.get('suspects/a', 100), Buffer.alloc(0))
    for (const name of ['keys/00000001', 'marks/_/vm/1/a', 'suspects/a']) {
      assert.equal(await place.remove(name), true)
      assert.equal(await place.remove(name), false)
      assert.equal(await place.get(name, 1_000_000), undefined)
    }
    assert.deepEqual(await namesIn(place, 'keys/'), [])
    for (const name of ['../out', 'a/../../b', '/etc/passwd', '']) {
      await assert.rejects(async () => place.put(name, content), /cannot be the name of an object/)
    }
  })

  test('of many who come for one name at the same moment one gets it', async () => {
    const spec = await fresh()
    await using one = await openPlace(spec)
    await using other = await openPlace(spec)
    for (let round = 0; round < 3; round += 1) {
      const contents = Array.from({ length: 8 }, () => randomBytes(50))
      const name = `keys/0000001${round}`
      const got = await Promise.all(contents.map((content, at) => (at % 2 === 0 ? one : other).put(name, content)))
      assert.equal(got.filter(Boolean).length, 1)
      assert.deepEqual(await other.get(name, 100), contents[got.indexOf(true)])
    }
  })

  test('a file is put under its hash, and put again in the place of a damaged one', async () => {
    await using place = await openPlace(await fresh())
    const content = randomBytes(9 * MiB)
    const id = createHash('sha256').update(content).digest('hex')
    const name = `packs/${id.slice(0, 2)}/${id}`
    const staged = async () => {
      const path = join(place.stagingDir, `pack-${randomBytes(4).toString('hex')}`)
      await writeFile(path, content)
      return path
    }
    assert.equal(await place.putFile(name, await staged()), true)
    assert.equal(await place.putFile(name, await staged()), false)
    await place.replaceFile(name, await staged())
    assert.ok((await place.read(name, 0, content.length)).equals(content))
    assert.deepEqual(await namesIn(place, 'packs/'), [name])
    assert.equal(await place.remove(name), true)
    assert.deepEqual(await namesIn(place, 'packs/'), [])
  })

  test('page after page of objects is listed, each once, and nothing beside the folder', async () => {
    await using place = await openPlace(await fresh())
    const names = Array.from({ length: 120 }, (_, at) => `marks/_/vm/1/${String(at).padStart(4, '0')}`)
    await inTurns([...names, 'suspects/a', 'keys/00000001'], 16, (name) => place.put(name, Buffer.alloc(0)))
    assert.deepEqual(await namesIn(place, 'marks/'), names)
  })
}

function datastoreRules(fresh: () => Promise<PlaceSpec>): void {
  test('backups come back bit for bit, share what they have in common, and give their space back', async () => {
    await using made = await makeDatastoreIn(await fresh())
    const [shared, own] = [disk('rt.r0'), randomBytes(5 * MiB)]
    const first = await backUp(await made.reopen(), point(0), { scsi0: Buffer.concat([shared, own]) })
    const second = await backUp(await made.reopen(), point(1, '101', 'office'), { scsi0: shared })
    assert.ok((first.disks[0]?.newChunks ?? 0) > 0)
    assert.equal(second.disks[0]?.newChunks, 0)
    const open = await made.reopen()
    await open.datastore.mark(point(1, '101', 'office'), { protected: true, notes: 'kept' })
    assert.deepEqual(
      (await open.datastore.list()).map(({ marks, damage }) => [marks.notes, damage]),
      [
        [undefined, undefined],
        ['kept', undefined],
      ],
    )
    const before = (await verifyPacks(open.datastore)).bytes
    await open.datastore.remove(point(0))
    await assert.rejects(open.datastore.remove(point(1, '101', 'office')), /is protected/)
    await using reader = await open.open(point(1, '101', 'office'))
    const runs = reader.runs('scsi0')
    const run = await runs.next()
    const collected = await collectGarbage(await made.reopen())
    assert.equal(collected.waitsFor, undefined)
    assert.ok(collected.freedBytes > 4 * MiB, `${collected.freedBytes} bytes came back`)
    // The reader began before its pack was written anew.
    for (let next = run; !next.done; next = await runs.next()) await next.value()
    const now = await made.reopen()
    assert.ok((await verifyPacks(now.datastore)).bytes < before - 4 * MiB)
    assert.deepEqual(await verifyIndex(now), [])
    await verifyBackup(now, point(1, '101', 'office'))
    assert.ok((await restored(now, point(1, '101', 'office'), 'scsi0')).equals(shared))
    await assert.rejects(now.open(point(0)), (fault) => isFault(fault, 'missing'))
  })

  test('what somebody says of a backup survives a check that ends at the same moment', async () => {
    await using made = await makeDatastoreIn(await fresh())
    await backUp(await made.reopen(), point(0), { scsi0: disk('r') })
    const [people, program] = [(await made.reopen()).datastore, (await made.reopen()).datastore]
    for (let round = 1; round <= 8; round += 1) {
      await people.mark(point(0), { protected: false })
      const said = { protected: true, notes: `round ${round}` }
      await Promise.all([people.mark(point(0), said), program.mark(point(0), { verified: round })])
      assert.deepEqual(await people.marks(point(0)), { ...said, verified: round })
    }
  })

  test('a copy is made there and from there without a key, and goes on where it was cut off', async () => {
    await using made = await makeDatastoreIn(await fresh())
    const content = disk('rrrrrr')
    await backUp(await made.reopen(), point(0), { scsi0: content })
    await backUp(await made.reopen(), point(1), { scsi0: Buffer.concat([content, disk('rr')]) })
    const source = (await made.reopen()).datastore
    const path = await mkdtemp(join(tmpdir(), 'hako-pulled-'))
    try {
      await using folder = await openPlace({ folder: path })
      const stopped = new AbortController()
      const cut = { signal: stopped.signal, onProgress: () => stopped.abort() }
      await assert.rejects(syncDatastore(source, folder, deps, cut), /interrupted/)
      assert.equal((await syncDatastore(source, folder, deps)).backups, 2)
      await readAlone(path, recovery)
      await using back = await openPlace(await fresh())
      const copy = await openDatastore(folder, deps)
      assert.equal((await syncDatastore(copy, back, deps)).backups, 2)
      assert.deepEqual(await syncDatastore(copy, back, deps), { backups: 0, removed: 0, packs: 0, bytes: 0 })
      const open = await (await openDatastore(back, deps)).unlock(secret)
      for (const one of [point(0), point(1)]) await verifyBackup(open, one)
      assert.ok((await restored(open, point(0), 'scsi0')).equals(content))
      await source.remove(point(0))
      await copy.remove(point(0))
      assert.equal((await syncDatastore(source, back, deps, { removesVanished: true })).removed, 1)
    } finally {
      await rm(path, { recursive: true })
    }
  })
}

function faultRules(fresh: () => Promise<PlaceSpec>): void {
  test('whoever is killed while writing leaves whole backups or none, and its space comes back', async () => {
    const spec = await fresh()
    await using made = await makeDatastoreIn(spec, later)
    {
      await killAfter(program, [JSON.stringify(spec), '0', '100'], randomInt(2))
      const open = await made.reopen()
      for (const one of await open.datastore.points()) {
        const { facts } = await open.body(one)
        await verifyBackup(open, one)
        const name = 'scsi1'
        assert.ok((await restored(open, one, name)).equals(contentAt(Number(facts.time), name)))
      }
      assert.equal((await collectGarbage(open)).waitsFor, undefined)
      const { damaged, packs } = await verifyPacks(open.datastore)
      assert.deepEqual(damaged, [])
      assert.equal(packs, new Set(open.index.segments.flatMap((segment) => segment.packs)).size, 'packs nobody knows')
      for (const folder of ['leases/', 'condemned/', 'suspects/', 'tmp/']) {
        assert.deepEqual(await namesIn(open.datastore.place, folder), [], folder)
      }
    }
  })
}
