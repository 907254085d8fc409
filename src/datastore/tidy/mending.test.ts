/** Parts of the index that are damaged or lost, and who finds it. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { deps, disk, memorySource } from '../../../test/fixtures/datastore.ts'
import {
  backUp,
  point,
  restored,
  secret,
  temporaryDatastore,
  type TemporaryDatastore,
} from '../../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { openDatastore, type OpenDatastore } from '../datastore.ts'
import { FolderPlace } from '../places/folder-place.ts'
import { printPoint } from '../point.ts'
import { verifyDatastore } from '../verify/verify-datastore.ts'
import { verifyEverything } from '../verify/verify-everything.ts'
import { verifyBackup, verifyIndex } from '../verify/verify.ts'
import { repairIndex } from './repair.ts'

const contents = [disk('rrt.'), disk('rr..r')]

/** Two backups, each with a part of the index of its own. */
async function twoParts(): Promise<TemporaryDatastore & { readonly parts: readonly string[] }> {
  const temporary = await temporaryDatastore()
  for (const [time, content] of contents.entries()) {
    await backUp(await temporary.reopen(), point(time), { scsi0: content })
  }
  const parts = await readdir(join(temporary.path, 'segments'))
  assert.equal(parts.length, 2)
  return { ...temporary, parts, [Symbol.asyncDispose]: () => temporary[Symbol.asyncDispose]() }
}

async function opened(path: string, said: string[]): Promise<OpenDatastore & AsyncDisposable> {
  const place = new FolderPlace(path, systemRandom)
  const write = (line: string) => void said.push(line)
  const log = { ...createLog(write), tell: write }
  const open = await (await openDatastore(place, { ...deps, log })).unlock(secret)
  return Object.assign(open, { [Symbol.asyncDispose]: () => place[Symbol.asyncDispose]() })
}

type Damage = (path: string) => Promise<void>

const damages: Readonly<Record<string, Damage>> = {
  lost: (path) => rm(path),
  'without its beginning': async (path) => writeFile(path, randomBytes(300)),
  'with its ids turned': async (path) => {
    const bytes = await readFile(path)
    const [packs, entries] = [bytes.readUInt32LE(8), bytes.readUInt32LE(12)]
    for (let entry = 0; entry < entries; entry += 1) {
      const at = 24 + packs * 32 + entry * 32 + 15
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
    }
    await writeFile(path, bytes)
  },
  'with places that are others': async (path) => {
    const bytes = await readFile(path)
    const [packs, entries] = [bytes.readUInt32LE(8), bytes.readUInt32LE(12)]
    for (let entry = 0; entry < entries; entry += 1) {
      const at = 24 + packs * 32 + entry * 32 + 20
      bytes.writeUInt32LE(bytes.readUInt32LE(at) + 1, at)
    }
    await writeFile(path, bytes)
  },
}

const mended = /the index of a datastore was damaged, and is mended from the packs/

/** In the log of a task. */
const told =
  /the index of '\S+' mends itself: (?:a part of it was gone|\d parts of it were damaged); \d+ chunks in \d packs are named/
const toldByReaders = /the index of '\S+' is not whole: .*; [1-9]\d* chunks in \d packs are found by what the packs say/

/** What each does for another reason. */
const finders: Readonly<Record<string, (open: OpenDatastore) => Promise<unknown>>> = {
  'a collection of garbage': (open) => collectGarbage(open),
  'a look at everything': async (open) => {
    const verdicts = await Array.fromAsync(verifyEverything(open))
    assert.deepEqual(
      verdicts.flatMap(({ damage }) => damage ?? []),
      [],
    )
    assert.ok(verdicts.some(({ mended: why }) => why !== undefined))
  },
  "a node's look at a storage": async (open) => assert.ok((await verifyDatastore(open)).mended.length > 0),
}

test('a part of the index that is damaged or lost loses nothing, and who finds it mends it', async () => {
  await using temporary = await twoParts()
  const folder = join(temporary.path, 'segments')
  const areWhole = async (what: string) => {
    for (const [time, content] of contents.entries()) {
      assert.ok((await restored(await temporary.reopen(), point(time), 'scsi0')).equals(content), what)
    }
  }
  for (const [how, damage] of Object.entries(damages)) {
    for (const [who, find] of Object.entries(finders)) {
      const what = `${how}: ${who}`
      for (const part of await readdir(folder)) await damage(join(folder, part))
      // Who reads asks the packs, writes nothing, and is not stopped.
      const before = await readdir(folder)
      await areWhole(what)
      await verifyBackup(await temporary.reopen(), point(0))
      assert.deepEqual(await readdir(folder), before)
      const said: string[] = []
      await using reader = await opened(temporary.path, said)
      await restored(reader, point(0), 'scsi0')
      assert.match(said.join('\n'), toldByReaders, what)
      await using there = await opened(temporary.path, said)
      await find(there)
      assert.match(said.join('\n'), mended, what)
      assert.match(said.join('\n'), told, what)
      assert.deepEqual(await verifyIndex(await temporary.reopen()), [], what)
    }
  }
  await areWhole('mended')
  const { condemnedChunks, removedPacks, chunks, liveChunks } = await collectGarbage(await temporary.reopen())
  assert.deepEqual([condemnedChunks, removedPacks, chunks], [0, 0, liveChunks])
  assert.deepEqual((await verifyDatastore(await temporary.reopen())).mended, [])
})

test('a backup that finds a part damaged mends it, and stores nothing twice', async () => {
  await using temporary = await twoParts()
  const [part = ''] = temporary.parts
  await writeFile(join(temporary.path, 'segments', part), randomBytes(300))
  const said: string[] = []
  await using there = await opened(temporary.path, said)
  const [content = Buffer.alloc(0)] = contents
  const { disks } = await backUp(there, point(2), { scsi0: Buffer.concat(contents) })
  assert.match(said.join('\n'), new RegExp(`${mended.source}.*segments/${part}`))
  assert.match(said.join('\n'), told)
  assert.equal(disks[0]?.newChunks, 0)
  assert.ok((await restored(await temporary.reopen(), point(0), 'scsi0')).equals(content))
  assert.deepEqual(await verifyIndex(await temporary.reopen()), [])
})

test('nobody mends beside a collector of garbage, and a writer at work loses nothing by it', async () => {
  await using temporary = await twoParts()
  const [first = '', second = ''] = temporary.parts
  await rm(join(temporary.path, 'segments', first))
  await writeFile(join(temporary.path, 'segments', second), randomBytes(300))
  const open = await temporary.reopen()
  {
    await using collecting = await open.datastore.tryTidy()
    assert.ok(collecting)
    assert.equal((await Array.fromAsync(verifyEverything(open))).filter(({ damage }) => damage).length, 1)
    await assert.rejects(repairIndex(open), (fault) => isFault(fault, 'conflict'))
    assert.deepEqual(await readdir(join(temporary.path, 'segments')), [second])
  }
  const content = disk('rrrr')
  await using writer = await (await temporary.reopen()).begin(point(5))
  await writer.addDisk('scsi0', memorySource(content))
  await verifyDatastore(open)
  await writer.commit()
  await collectGarbage(await temporary.reopen())
  assert.ok((await restored(await temporary.reopen(), point(5), 'scsi0')).equals(content), printPoint(point(5)))
  for (const [time, one] of contents.entries()) {
    assert.ok((await restored(await temporary.reopen(), point(time), 'scsi0')).equals(one))
  }
  assert.deepEqual(await verifyIndex(await temporary.reopen()), [])
})
