/**
 * The index of a datastore with many small chunks: what it takes to write, open and ask it, and how much memory. Entries
 * are made up; half of what is asked for is there. One segment, as after a merge, and as many as there may be before one.
 *
 *   node bench/index-lookups.ts [entries] [look-ups]
 */
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { ChunkIndex } from '#datastore/index/chunk-index.ts'
import { ChunkOrdinals } from '#datastore/index/ordinals.ts'
import { FolderPlace } from '#datastore/places/folder-place.ts'
import { Keyring, newSecrets } from '#datastore/keys/keyring.ts'
import { replaceSegments } from '#datastore/index/merge.ts'
import { type SegmentEntry, writeSegment } from '#datastore/index/segment.ts'
import { row, table } from './figures.ts'
import { memoryOf } from './process.ts'

const [entries = 10_000_000, lookUps = 100_000] = process.argv.slice(2).map(Number)
const segments = 8
const perPack = 400

using undo = new DisposableStack()
const scratch = mkdtempSync('/var/tmp/hako-index-')
undo.defer(() => rmSync(scratch, { recursive: true, force: true }))
await using place = new FolderPlace(scratch, systemRandom, { isAlone: true })
await place.prepare()
const needs = { place, keyring: new Keyring(newSecrets(systemRandom)), random: systemRandom }

const perSegment = Math.ceil(entries / segments)
/** Entries by which chance moves one from where it would be if all were equally far apart. */
const drift = Math.sqrt(perSegment) / 2

/** In order, and spread as by chance: the first bytes count, the rest is chance. */
function idOf(number: number, segment: number): Buffer {
  const id = createHash('md5').update(`${number} ${segment}`).digest()
  const place = number + drift * (1 + Math.sin(number / (10 * drift) + segment))
  id.writeUInt32BE(Math.floor((place / (perSegment + 2 * drift + 1)) * 2 ** 32), 0)
  return id
}

const packsPerSegment = Math.ceil(perSegment / perPack)
const packOf = (number: number, segment: number) => {
  return (segment * packsPerSegment + (number % packsPerSegment)).toString(16).padStart(64, '0')
}

function* entriesOf(segment: number): Generator<SegmentEntry> {
  for (let number = 0; number < perSegment; number += 1) {
    const where = { offset: 48 + number, length: 4_000, plainBytes: 8_000, flags: 1 }
    yield { id: idOf(number, segment), pack: packOf(number, segment), ...where }
  }
}

const lines: string[] = []
async function timed<T>(what: string, act: () => Promise<T>, each = 1): Promise<T> {
  const [began, cpu] = [performance.now(), process.cpuUsage()]
  const result = await act()
  const used = process.cpuUsage(cpu)
  const ms = [performance.now() - began, (used.user + used.system) / 1_000]
  const shown = ms.map((value) => (each === 1 ? value.toFixed(0) : ((value / each) * 1_000).toFixed(1)))
  lines.push(row(`${what}${each === 1 ? ', ms' : ', µs each'}`, ...shown, ...memoryOf(process.pid)))
  return result
}

async function ask(what: string, index: ChunkIndex): Promise<void> {
  const known = (at: number) => idOf(Math.floor((at * 7919) % perSegment), at % segments)
  const unknown = (at: number) => createHash('md5').update(`unknown ${at}`).digest()
  await timed(`${what}: what is there`, () => count(index, known, lookUps), lookUps)
  await timed(`${what}: what is not`, () => count(index, unknown, 0), lookUps)
}

async function count(index: ChunkIndex, idAt: (at: number) => Buffer, expected: number): Promise<void> {
  let found = 0
  for (let at = 0; at < lookUps; at += 1) if (await index.has(idAt(at))) found += 1
  if (found !== expected) throw new Error(`${found} of ${lookUps} were found, ${expected} are there`)
}

await timed('write', async () => {
  for (let segment = 0; segment < segments; segment += 1) {
    const packs = Array.from({ length: packsPerSegment }, (_, at) => packOf(at, segment))
    await writeSegment(needs, perSegment, [entriesOf(segment)], packs)
  }
})
const index = await timed('open', () => ChunkIndex.open(place, silentLog))
await ask(`${segments} segments`, index)
await timed('merge', () =>
  replaceSegments(needs, index.segments, { keeps: () => true, best: () => Promise.resolve(0) }),
)
const merged = await timed('open', () => ChunkIndex.open(place, silentLog))
await ask('one segment', merged)
await timed('number all, to collect garbage', () => ChunkOrdinals.of(merged.segments))
table(row(`${entries} entries`, 'wall', 'CPU', 'MiB now', 'its own', 'at most'), lines)
