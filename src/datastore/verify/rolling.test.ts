/** Verifying a little each day, and mending from a copy what was found. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { deps, disk, memorySource } from '../../../test/fixtures/datastore.ts'
import { makeManyFiles, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { backUp, point, restored, secret, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { openDatastore } from '../datastore.ts'
import { FolderPlace } from '../places/folder-place.ts'
import { backupsHit } from './hits.ts'
import { printPoint } from '../point.ts'
import { refetch } from '../copy/refetch.ts'
import { syncDatastore } from '../copy/sync.ts'
import { verifyBackup, verifyPacks } from './verify.ts'

async function packsOf(path: string): Promise<string[]> {
  const entries = await readdir(join(path, 'packs'), { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

async function flip(path: string): Promise<void> {
  const bytes = await readFile(path)
  bytes.writeUInt8(bytes.readUInt8(60) ^ 1, 60)
  await writeFile(path, bytes)
}

test('a budget looks at the oldest first, and day after day at everything', async () => {
  await using temporary = await temporaryDatastore()
  for (let time = 0; time < 4; time += 1) await backUp(await temporary.reopen(), point(time), { scsi0: disk('rr') })
  const { length: all } = await packsOf(temporary.path)
  const { datastore } = await temporary.reopen()
  let now = 1_000_000_000_000
  const clock = { ...deps.clock, now: () => now }
  const daily = await openDatastore(datastore.place, { ...deps, clock })
  const seen: number[] = []
  for (let left = all; left > 0;) {
    const day = await verifyPacks(daily, { budgetBytes: 1 })
    assert.equal(day.packs, 1)
    left = day.left === all - 1 && seen.length === all - 1 ? 0 : left - 1
    seen.push(day.oldest ?? 0)
    now += 86_400_000
  }
  // Only the last one sees the end of what nobody has ever looked at.
  assert.deepEqual(seen, [...Array.from({ length: all - 1 }, () => 0), 1_000_000_000])
  await flip((await packsOf(temporary.path))[0] ?? '')
  const found = []
  for (let day = 0; day < all; day += 1) {
    found.push(...(await verifyPacks(daily, { budgetBytes: 1 })).damaged)
    now += 86_400_000
  }
  assert.equal(found.length, 1)
  assert.equal((await verifyPacks(daily, { budgetMs: 0 })).packs, 0)
  assert.equal((await verifyPacks(daily)).packs, all)
})

test('a damaged pack names the backups it hits and no others, and comes back whole from a copy', async () => {
  await using temporary = await temporaryDatastore()
  const [hit, spared] = [Buffer.concat([disk('rr'), randomBytes(MiB)]), disk('rrr')]
  await backUp(await temporary.reopen(), point(0), { scsi0: hit })
  const [one = '', ...others] = await packsOf(temporary.path)
  {
    // Nothing in common with the others, not even a file.
    await using writer = await (await temporary.reopen()).begin(point(1, '101'))
    await writer.addDisk('scsi0', memorySource(spared))
    await writer.commit()
  }
  await backUp(await temporary.reopen(), point(2), { scsi0: hit })
  const copyPath = await mkdtemp(join(tmpdir(), 'hako-copy-'))
  try {
    await using place = new FolderPlace(copyPath, systemRandom)
    await place.prepare()
    const { datastore } = await temporary.reopen()
    await syncDatastore(datastore, place, deps)
    const copy = await openDatastore(place, deps)
    // One is damaged, the other one of the first backup is gone.
    await flip(one)
    for (const path of others) await rm(path)
    const { damaged } = await verifyPacks(datastore)
    const lost = [one, ...others].map((path) => basename(path))
    assert.deepEqual(damaged.toSorted(), lost.toSorted())
    const hits = await backupsHit(await temporary.reopen(), new Set(damaged))
    assert.deepEqual(hits, [point(0), point(2)].map(printPoint))
    await using other = await temporaryDatastore()
    await assert.rejects(refetch((await other.reopen()).datastore, copy), /is no copy of/)
    const { fetched, missing } = await refetch(datastore, copy)
    assert.deepEqual(fetched.map((name) => basename(name)).toSorted(), lost.toSorted())
    assert.deepEqual(missing, [])
    const open = await temporary.reopen()
    assert.equal(open.index.hasSuspects, false)
    for (const backup of [point(0), point(1, '101'), point(2)]) await verifyBackup(open, backup)
    assert.ok((await restored(open, point(0), 'scsi0')).equals(hit))
    // A part of the index as well; and what the copy has lost, too, is said.
    const [segment = ''] = await readdir(join(temporary.path, 'segments'))
    await flip(join(temporary.path, 'segments', segment))
    await flip(one)
    await flip(join(copyPath, one.slice(temporary.path.length)))
    await verifyPacks(datastore)
    const again = await refetch(datastore, copy)
    assert.deepEqual(
      [again.fetched, again.missing.map((name) => basename(name))],
      [[`segments/${segment}`], [basename(one)]],
    )
  } finally {
    await rm(copyPath, { recursive: true })
  }
})

test('a damaged pack names the backups of containers, too, whether content or what a tree is made of is in it', async () => {
  await using temporary = await temporaryDatastore()
  const home = await mkdtemp(join(tmpdir(), 'hako-trees-'))
  const container = (time: number, id: string) => ({ ...point(time, id), type: 'ct' as const })
  const backedUp = async (name: ReturnType<typeof container>, root: string): Promise<string[]> => {
    const before = await packsOf(temporary.path)
    await using writer = await (await temporary.reopen()).begin(name)
    await writer.addTree('rootfs', unsettledSource({ root }))
    await writer.commit()
    return (await packsOf(temporary.path)).filter((path) => !before.includes(path))
  }
  try {
    const [one, other] = ['one', 'other'].map((name) => join(home, name)) as [string, string]
    for (const [seed, root] of [one, other].entries()) {
      mkdirSync(root)
      makeManyFiles(root, 40, seed + 1)
      await writeFile(join(root, 'large'), randomBytes(MiB))
    }
    const packs = await backedUp(container(0, '200'), one)
    await backedUp(container(1, '201'), other)
    // Shares with the first all but one file.
    await writeFile(join(one, 'new'), 'new')
    await backedUp(container(2, '200'), one)
    await backUp(await temporary.reopen(), point(3), { scsi0: disk('r') })
    assert.equal(packs.length, 2)
    for (const pack of packs) {
      const hits = await backupsHit(await temporary.reopen(), new Set([basename(pack)]))
      const isContent = readFileSync(pack).readUInt32LE(12) === 0
      // A few files are one piece of a tree, which the third has anew.
      const hit = isContent ? [container(0, '200'), container(2, '200')] : [container(0, '200')]
      assert.deepEqual(hits, hit.map(printPoint))
      const whole = await readFile(pack)
      await flip(pack)
      const { damaged } = await verifyPacks((await temporary.reopen()).datastore)
      assert.deepEqual(damaged, [basename(pack)])
      assert.deepEqual(await backupsHit(await temporary.reopen(), new Set(damaged)), hits)
      await writeFile(pack, whole)
      await (await temporary.reopen()).datastore.place.remove(`suspects/${basename(pack)}`)
    }
  } finally {
    await rm(home, { recursive: true })
  }
})

test('a copy gets all that is whole from a source with damage, which is named; mended there, the rest follows', async () => {
  await using temporary = await temporaryDatastore()
  const contents = new Map([0, 1, 2].map((time) => [time, disk('rrr')]))
  for (const [time, content] of contents) await backUp(await temporary.reopen(), point(time), { scsi0: content })
  const source = (await temporary.reopen()).datastore
  const pack = (await packsOf(temporary.path)).find((path) => readFileSync(path).readUInt32LE(12) === 0) ?? ''
  const [, manifest = ''] = await readdir(join(temporary.path, 'backups/_/vm/100'))
  const damaged = [pack, join(temporary.path, 'backups/_/vm/100', manifest)]
  const whole = await Promise.all(damaged.map((path) => readFile(path)))
  for (const path of damaged) await flip(path)
  const copyPath = await mkdtemp(join(tmpdir(), 'hako-copy-'))
  try {
    await using place = new FolderPlace(copyPath, systemRandom)
    await place.prepare()
    const said = (fault: unknown) => isFault(fault, 'damaged') && damaged.every((path) => fault.message.includes(basename(path))) // prettier-ignore
    for (let time = 0; time < 2; time += 1) await assert.rejects(syncDatastore(source, place, deps), said)
    const copy = await openDatastore(place, deps)
    assert.equal((await copy.points()).length, 2)
    const restorable = async () => {
      const open = await copy.unlock(secret)
      const found = []
      for (const one of await copy.points()) {
        const content = await restored(open, one, 'scsi0').catch((fault: unknown) =>
          assert.ok(isFault(fault, 'damaged')),
        )
        if (content) found.push(content.equals(contents.get(one.time - point(0).time) ?? Buffer.alloc(0)))
      }
      return found
    }
    // One manifest is not there, and one backup at most needs the pack.
    assert.ok((await restorable()).length >= 1)
    // Who writes into the copy does not rely on what did not come.
    for (const [time, content] of contents)
      await backUp(await copy.unlock(secret), point(10 + time), { scsi0: content })
    for (const time of contents.keys()) await verifyBackup(await copy.unlock(secret), point(10 + time))
    for (const time of contents.keys()) await copy.remove(point(10 + time))
    for (const [number, path] of damaged.entries()) await writeFile(path, whole[number] ?? '')
    assert.equal((await syncDatastore(source, place, deps)).backups, 1)
    assert.deepEqual(await restorable(), [true, true, true])
    assert.deepEqual((await verifyPacks(copy)).damaged, [])
  } finally {
    await rm(copyPath, { recursive: true })
  }
})
