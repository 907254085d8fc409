/** A datastore whose packs and chunks are called by SHA-256, as they were before BLAKE3: it is read, trusted and continued. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { systemRandom } from '#base/random.ts'
import made from '../../test/fixtures/datastore-before-blake3.json' with { type: 'json' }
import { deps, memorySource } from '../../test/fixtures/datastore.ts'
import { restored } from '../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from './collect/garbage.ts'
import type { BlockSource } from './backup/block-source.ts'
import type { AddDiskOptions } from './backup/writer.ts'
import { type OpenDatastore, openDatastore } from './datastore.ts'
import { FolderPlace } from './places/folder-place.ts'
import { printPoint, type RestorePoint } from './point.ts'
import { verifyEverything } from './verify/verify-everything.ts'
import { verifyBackup, verifyPacks } from './verify/verify.ts'

const part = 'drive0'
const passphrase = 'an old passphrase'
const seconds = (time: string) => Date.parse(time) / 1000
const before: RestorePoint = { namespace: '', type: 'host', id: 'disk', time: seconds('2026-11-21T06:27:30Z') }
const tree: RestorePoint = { namespace: '', type: 'host', id: 'tree', time: seconds('2026-11-21T06:27:37Z') }
const later = (time: number): RestorePoint => ({ ...before, time: before.time + 3600 * time })

/** As the disk was made. */
function content(): Buffer {
  const line = (number: number) =>
    createHash('sha256')
      .update(String(Math.floor(number / 64)))
      .digest('hex')
      .slice(0, 32)
  return Buffer.from(Array.from({ length: 5 * 2048 }, (_, number) => line(number)).join('')).subarray(0, 300 * KiB)
}

async function theDatastore() {
  await using undo = new AsyncDisposableStack()
  const path = await mkdtemp(join(tmpdir(), 'hako-before-'))
  undo.defer(() => rm(path, { recursive: true }))
  for (const [name, bytes] of Object.entries(made)) {
    await mkdir(dirname(join(path, name)), { recursive: true })
    await writeFile(join(path, name), Buffer.from(bytes, 'base64'))
  }
  const disposes = undo.move()
  const reopen = async () => {
    const place = disposes.use(new FolderPlace(path, systemRandom))
    await place.prepare()
    return (await openDatastore(place, deps)).unlock({ kind: 'passphrase', passphrase })
  }
  return { path, reopen, [Symbol.asyncDispose]: () => disposes.disposeAsync() }
}

async function damagesOf(open: OpenDatastore): Promise<string[]> {
  const verdicts = await Array.fromAsync(verifyEverything(open))
  assert.ok(verdicts.some(({ point }) => point))
  return verdicts.flatMap(({ damage }) => damage ?? [])
}

function read(path: string, point: RestorePoint, ...about: string[]) {
  const reader = join(import.meta.dirname, '../../docs/formats/read-datastore-v2.ts')
  const args = ['--disable-warning=ExperimentalWarning', reader, path, 'restore', printPoint(point), ...about]
  const { status, stderr } = spawnSync(process.execPath, args, { input: `${passphrase}\n` })
  assert.equal(status, 0, stderr.toString())
}

test('packs from before are whole by their names and by their content, and a turned bit is found', async () => {
  await using old = await theDatastore()
  const open = await old.reopen()
  assert.deepEqual((await verifyPacks(open.datastore)).damaged, [])
  assert.ok((await restored(open, before, part)).equals(content()))
  for (const point of [before, tree]) await verifyBackup(open, point)
  assert.deepEqual(await damagesOf(open), [])
  const packs = (await readdir(join(old.path, 'packs'), { recursive: true, withFileTypes: true })).filter((one) =>
    one.isFile(),
  )
  const [pack = packs[0]] = packs
  assert.ok(pack)
  const path = join(pack.parentPath, pack.name)
  const bytes = await readFile(path)
  for (const at of [7, 100]) {
    const turned = Buffer.from(bytes)
    turned[at] = (turned[at] ?? 0) ^ 1
    await writeFile(path, turned)
    assert.deepEqual((await verifyPacks((await old.reopen()).datastore)).damaged, [pack.name], `byte ${at}`)
  }
})

test('backups go on from those before: nothing unchanged is stored again, an audit of all of it finds no lie', async () => {
  await using old = await theDatastore()
  const now = content()
  const open = await old.reopen()
  const again = async (point: RestorePoint, source: BlockSource, options: AddDiskOptions = {}) => {
    await using writer = await (await old.reopen()).begin(point)
    const disk = await writer.addDisk(part, source, { record: `record ${point.time}`, ...options })
    await writer.commit()
    return disk
  }
  assert.equal((await again(later(1), memorySource(now))).newChunks, 0)
  now.set(randomBytes(50), 70 * KiB)
  const extents = [0, 64, 128].map((at, number) => ({
    offset: at * KiB,
    length: number === 2 ? now.length - at * KiB : 64 * KiB,
    isZero: false,
    isUnchanged: number !== 1,
  }))
  const since = { point: later(1), disk: part, record: `record ${later(1).time}` }
  const changed = await again(later(2), memorySource(now, extents), { since, auditedShare: 1 })
  assert.deepEqual([changed.reading?.how, changed.newChunks], ['changes', 1])
  await open.datastore.remove(before)
  await open.datastore.remove(later(1))
  await collectGarbage(await old.reopen())
  assert.deepEqual(await damagesOf(await old.reopen()), [])
  assert.ok((await restored(await old.reopen(), later(2), part)).equals(now))
})

test('the stand-alone reader reads packs of both kinds', async () => {
  await using old = await theDatastore()
  const now = content()
  now.set(randomBytes(50), 70 * KiB)
  await using writer = await (await old.reopen()).begin(later(1))
  await writer.addDisk(part, memorySource(now))
  await writer.commit()
  for (const [point, expected] of [
    [before, content()],
    [later(1), now],
  ] as const) {
    const target = join(old.path, `${point.time}.raw`)
    read(old.path, point, part, target)
    assert.ok((await readFile(target)).equals(expected))
  }
  read(old.path, tree, 'tree0', join(old.path, 'out'))
  assert.equal(await readFile(join(old.path, 'out/a'), 'utf8'), 'an old file\n')
})
