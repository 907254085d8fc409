/** What reading a backup costs in requests where it lies on a real S3 server, and what is read ahead of whom. */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { badWay } from '../../../test/fixtures/bad-way.ts'
import { deps } from '../../../test/fixtures/datastore.ts'
import { objectStore } from '../../../test/fixtures/object-store.ts'
import { backUp, makeDatastoreIn, point, restored, secret } from '../../../test/fixtures/sealed-datastore.ts'
import { openDatastore, type OpenDatastore } from '../datastore.ts'
import { defaultChunkBytes } from '../format.ts'
import { ServedDisk } from '../restore/served-disk.ts'
import { treeSource } from '../tree/source.ts'
import { restoreTree } from '../tree/restore.ts'
import { S3Place } from './s3/place.ts'
import { verifyBackup, verifyIndex } from '../verify/verify.ts'
import { verifyEverything } from '../verify/verify-everything.ts'
import { ReadAhead } from './read-ahead.ts'

// What was made last goes first: it is read once more before the server ends.
const undo = new AsyncDisposableStack()
after(() => undo.disposeAsync())
const server = undo.use(await objectStore())
const home = await mkdtemp(join(tmpdir(), 'hako-read-ahead-'))
undo.defer(() => rm(home, { recursive: true }))
const way = undo.use(await badWay(server.endpoint))

/** Two packs of content, then five backups of a few chunks each, spread over the disk. */
const content = randomBytes(40 * MiB)
const [last, files] = [point(5), { ...point(6), type: 'host', id: 'files' } as const]
const s3 = {
  bucket: await server.bucket(),
  prefix: 'site',
  endpoint: way.endpoint,
  credentialsFile: server.credentialsFile,
}
const made = undo.use(await makeDatastoreIn({ s3 }))
await backUp(await made.reopen(), point(0), { scsi0: content })
for (let time = 1; time <= 5; time += 1) {
  for (let changes = 0; changes < 6; changes += 1)
    randomBytes(defaultChunkBytes).copy(content, randomInt(320) * defaultChunkBytes)
  await backUp(await made.reopen(), point(time), { scsi0: content })
}
await mkdir(join(home, 'files'))
const names = Array.from({ length: 300 }, (_, at) => `file-${String(at).padStart(3, '0')}`)
for (const name of names) await writeFile(join(home, 'files', name), randomBytes(40 * KiB))
{
  const open = await made.reopen()
  await using writer = await open.begin(files)
  await writer.addTree('tree0', treeSource({ root: join(home, 'files') }))
  await writer.commit({ facts: {} })
}

/** Requests for parts of packs, and the bytes asked for. */
async function cost(act: (open: OpenDatastore) => Promise<unknown>): Promise<{ requests: number; bytes: number }> {
  const open = await made.reopen()
  const found = { requests: 0, bytes: 0 }
  way.decide = ({ url = '', headers: { range } }: IncomingMessage) => {
    const [, from = '', to] = /^bytes=(\d*)-(\d+)$/.exec(range ?? '') ?? []
    if (!url.includes('/packs/')) return 'none'
    found.requests += 1
    found.bytes += from === '' ? Number(to) : Number(to) + 1 - Number(from)
    return 'none'
  }
  await act(open)
  way.decide = () => 'none'
  return found
}

test('a backup is read in some requests for each of its packs, not in one for each chunk', async () => {
  const verified = await cost((open) => verifyBackup(open, last))
  // 7 packs of content and 6 of maps, two or three requests each; 5 of 8 MiB for what is in them.
  assert.ok(verified.requests <= 36, `verify: ${verified.requests}`)
  assert.ok(verified.bytes < content.length * 1.3, `verify: ${verified.bytes}`)
  const whole = await cost(async (open) => assert.ok((await restored(open, last, 'scsi0')).equals(content)))
  assert.ok(whole.requests <= 36, `restore: ${whole.requests}`)
  const inOrder = await cost(async (open) => {
    await using reader = await open.open(last)
    const found: Buffer[] = []
    for await (const read of reader.runs('scsi0')) for (const part of await read()) found.push(part.content)
    assert.ok(Buffer.concat(found).equals(content))
  })
  assert.ok(inOrder.requests <= 36, `in order: ${inOrder.requests}`)
  const all = await cost(async (open) => {
    for await (const { damage } of verifyEverything(open)) assert.equal(damage, undefined)
  })
  assert.ok(all.requests <= 60, `everything: ${all.requests}`)
})

test('files are read as disks are', async () => {
  const verified = await cost((open) => verifyBackup(open, files))
  assert.ok(verified.requests <= 15, `verify: ${verified.requests}`)
  const target = join(home, 'restored')
  await mkdir(target)
  const whole = await cost(async (open) => {
    await using reader = await open.open(files)
    await restoreTree(reader, 'tree0', { target })
  })
  assert.ok(whole.requests <= 36, `restore: ${whole.requests}`)
  for (const name of names) {
    assert.ok((await readFile(join(target, name))).equals(await readFile(join(home, 'files', name))), name)
  }
})

test('who reads here and there gets what it asks for, who reads on gets it ahead', async () => {
  const into = Buffer.alloc(4 * KiB)
  const jumping = await cost(async (open) => {
    await using reader = await open.open(last)
    const disk = new ServedDisk(await reader.openDisk('scsi0'), reader)
    for (let chunk = 3; chunk < 300; chunk += 10) {
      await disk.read(chunk * defaultChunkBytes + 512, into)
      assert.ok(into.equals(content.subarray(chunk * defaultChunkBytes + 512).subarray(0, into.length)))
    }
  })
  // 30 chunks, the map, and the tables of packs.
  assert.ok(jumping.bytes < 30 * (defaultChunkBytes + 64) + 13 * 80 * KiB, `here and there: ${jumping.bytes}`)
  const flowing = await cost(async (open) => {
    await using reader = await open.open(last)
    const disk = new ServedDisk(await reader.openDisk('scsi0'), reader)
    const some = Buffer.alloc(512 * KiB)
    for (let at = 0; at < content.length; at += some.length) {
      await disk.read(at, some)
      assert.ok(some.equals(content.subarray(at, at + some.length)))
    }
  })
  assert.ok(flowing.requests <= 100, `on and on: ${flowing.requests}`)
  assert.ok(flowing.bytes < content.length * 1.3, `on and on: ${flowing.bytes}`)
})

test('parts of the index are fetched once on a machine, and never those the place does not have any more', async () => {
  let fetched = 0
  const look = async () => {
    fetched = 0
    way.decide = ({ method, url = '' }) => {
      if (method !== 'PUT' && url.includes('/segments/')) fetched += 1
      return 'none'
    }
    await using place = await S3Place.open({ ...s3, keptHome: join(home, 'kept') }, deps)
    const open = await (await openDatastore(place, deps)).unlock(secret)
    way.decide = () => 'none'
    return open.index.segments.map((segment) => segment.name)
  }
  const all = await look()
  assert.ok(fetched >= all.length)
  assert.deepEqual(await look(), all)
  assert.equal(fetched, 0)
  await using place = await S3Place.open({ ...s3, keptHome: join(home, 'kept') }, deps)
  const [gone = '', damaged = ''] = all
  await place.remove(gone)
  assert.deepEqual(await look(), all.slice(1))
  assert.equal(fetched, 0)
  // Whoever verifies is told what the place has, not what is kept of it.
  const credentials = { accessKeyId: server.accessKey, secretAccessKey: server.secretKey }
  const client = new S3Client({ credentials, endpoint: server.endpoint, region: 'default', forcePathStyle: true })
  await client.send(new PutObjectCommand({ Bucket: s3.bucket, Key: `site/${damaged}`, Body: randomBytes(5_000) }))
  client.destroy()
  assert.deepEqual(await look(), all.slice(1))
  const open = await (await openDatastore(place, deps)).unlock(secret)
  assert.deepEqual(await verifyIndex(open), [`${damaged} is not what its name says`])
})

/** A pack in memory, that says what was asked for. */
function packInMemory(bytes: Buffer, endsAt = bytes.length) {
  const asked: number[] = []
  const read = async (_: string, offset: number, length: number) => {
    asked.push(length)
    if (offset + length > endsAt) throw new Fault('damaged', 'it ends early')
    return Buffer.from(bytes.subarray(offset, offset + length))
  }
  return { read, sizeOf: async () => bytes.length, asked, total: () => asked.reduce((sum, length) => sum + length, 0) }
}

test('what is announced and never read takes a bounded room, and comes by itself when it is read in the end', async () => {
  const bytes = randomBytes(MiB)
  const elsewhere = packInMemory(bytes)
  const ahead = new ReadAhead(elsewhere)
  using plan = ahead.plan()
  const packs = Array.from({ length: 400 }, (_, at) => `packs/${at}`)
  for (const pack of packs) plan.add(pack, 0, MiB)
  assert.ok((await ahead.read('packs/399', 0, MiB)).equals(bytes))
  await new Promise((resolve) => setImmediate(resolve))
  assert.ok(elsewhere.total() <= 98 * MiB, `${elsewhere.total()} bytes held`)
  for (const pack of packs) assert.ok((await ahead.read(pack, 0, MiB)).equals(bytes))
  assert.ok(elsewhere.total() <= 402 * MiB)
})

test('parts in any order, near or far, announced or not, read once or often, at the same time, are what is there', async () => {
  const bytes = randomBytes(6 * MiB)
  for (let round = 0; round < 8; round += 1) {
    const elsewhere = packInMemory(bytes)
    const ahead = new ReadAhead(elsewhere)
    const parts = Array.from({ length: 200 }, () => [randomInt(6 * MiB - 70_000), 1 + randomInt(70_000)] as const)
    using plan = ahead.plan()
    for (const [offset, length] of parts) if (randomInt(5) > 0) plan.add('packs/a', offset, length)
    const room = Buffer.alloc(80_000)
    const isThere = async ([offset, length]: readonly [number, number], into?: Buffer) =>
      assert.ok((await ahead.read('packs/a', offset, length, into)).equals(bytes.subarray(offset, offset + length)))
    await Promise.all(parts.slice(0, 150).map((part) => isThere(part)))
    for (const part of parts) await isThere(part, room)
  }
})

test('of a pack that was cut off all comes that is in front of the cut', async () => {
  const bytes = randomBytes(2 * MiB)
  const ahead = new ReadAhead(packInMemory(bytes, MiB + 100))
  using plan = ahead.plan()
  for (let at = 0; at < 2 * MiB; at += 128 * KiB) plan.add('packs/a', at, 128 * KiB)
  for (let at = 0; at < 2 * MiB; at += 128 * KiB) {
    const reading = ahead.read('packs/a', at, 128 * KiB)
    if (at < MiB) assert.ok((await reading).equals(bytes.subarray(at, at + 128 * KiB)))
    else await assert.rejects(reading, /ends early/)
  }
})
