/**
 * What a datastore costs that holds many restore points of a large disk: to list them, to say which would be pruned, to
 * open one, to collect garbage. The disk is sparse and generated: some chunks in each piece of its map; from one point to
 * the next a few hundred of them change, close to each other, as a day's writes are. Each command is a whole process.
 *
 *   node bench/many-points.ts [points] [TiB] [rounds]
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { KiB, MiB, TiB } from '#base/bytes.ts'
import { silentLog } from '#base/log.ts'
import { nodeFlags } from '#base/node-flags.ts'
import { systemClock } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'
import type { BlockSource, Extent } from '#datastore/backup/block-source.ts'
import { createDatastore } from '#datastore/create-datastore.ts'
import { FolderPlace } from '#datastore/places/folder-place.ts'
import { printPoint } from '#datastore/point.ts'
import { printRecoveryKey } from '#datastore/keys/slot.ts'
import { median, row, table } from './figures.ts'
import { type Command, measured, type MeasuredFigures } from './process.ts'
import { withPackages } from './peers.ts'

const [points = 1_000, tebibytes = 1, rounds = 5] = process.argv.slice(2).map(Number)
const chunkBytes = 128 * KiB
const pieceBytes = 512 * MiB
const sizeBytes = tebibytes * TiB
const pieces = sizeBytes / pieceBytes
/** Chunks with data in each piece; pieces that change from one point to the next, one in eight of their chunks. */
const [inPiece, changedPieces] = [64, 32]

await using undo = new AsyncDisposableStack()
undo.use(await withPackages('time'))
const scratch = mkdtempSync('/var/tmp/hako-points-')
undo.defer(() => rmSync(scratch, { recursive: true, force: true }))
const [directory, keyFile] = [join(scratch, 'datastore'), join(scratch, 'key')]
const key = Buffer.alloc(32, 7)
writeFileSync(keyFile, key)

/** Chunk `number` of a piece, as it is since a point. */
function content(into: Uint8Array, piece: number, number: number, since: number): void {
  const pattern = Buffer.alloc(512)
  pattern.write(`piece ${piece} chunk ${number} since ${since}`)
  for (let at = 0; at < into.length; at += pattern.length) into.set(pattern.subarray(0, into.length - at), at)
}

const firstChanged = (point: number) => (point * 37) % (pieces - changedPieces)
const isChanged = (piece: number, number: number, point: number) =>
  piece >= firstChanged(point) && piece < firstChanged(point) + changedPieces && number % 8 === point % 8

/** The first point is read whole; of the others it is known what changed. */
function diskAt(point: number): BlockSource {
  const told = (offset: number, length: number, isZero: boolean): Extent => ({ offset, length, isZero })
  return {
    sizeBytes,
    async *extents() {
      for (let piece = 0; piece < pieces; piece += 1) {
        const at = piece * pieceBytes
        const dataBytes = inPiece * chunkBytes
        if (point === 0) {
          yield told(at, dataBytes, false)
          yield told(at + dataBytes, pieceBytes - dataBytes, true)
        } else if (isChanged(piece, point % 8, point)) {
          for (let number = 0; number < inPiece; number += 1) {
            const isUnchanged = !isChanged(piece, number, point)
            yield { offset: at + number * chunkBytes, length: chunkBytes, isZero: false, isUnchanged }
          }
          yield { offset: at + dataBytes, length: pieceBytes - dataBytes, isZero: true, isUnchanged: true }
        } else yield { offset: at, length: pieceBytes, isZero: false, isUnchanged: true }
      }
    },
    async read(offset, into) {
      for (let at = 0; at < into.length; at += chunkBytes) {
        const [piece, inside] = [Math.floor((offset + at) / pieceBytes), (offset + at) % pieceBytes]
        content(into.subarray(at, at + chunkBytes), piece, inside / chunkBytes, point)
      }
    },
    [Symbol.asyncDispose]: async () => {},
  }
}

const deps = { clock: systemClock, random: systemRandom, log: silentLog }
const place = undo.use(new FolderPlace(directory, systemRandom))
await place.prepare()
const secret = { kind: 'key', key } as const
const recovery = { kind: 'recovery', text: printRecoveryKey(Buffer.alloc(32, 9)) } as const
const ways = [
  { secret, confirmed: true, created: 0 },
  { secret: recovery, confirmed: true, created: 0 },
]
const datastore = await createDatastore(place, deps, { ways })
const open = await datastore.unlock(secret)
const began = performance.now()
const nameOf = (point: number) => ({
  namespace: '',
  type: 'vm' as const,
  id: '100',
  time: 1_700_000_000 + point * 86_400,
})
for (let point = 0; point < points; point += 1) {
  await using writer = await open.begin(nameOf(point))
  const since = point === 0 ? {} : { since: { point: nameOf(point - 1), disk: 'drive0', record: `${point - 1}` } }
  // What was not changed is made up, so it is not looked at either.
  await writer.addDisk('drive0', diskAt(point), { record: `${point}`, auditedShare: 0, ...since })
  await writer.commit()
}
process.stdout.write(`${points} points made in ${((performance.now() - began) / 1000).toFixed(0)} s\n\n`)

process.env.NODE_COMPILE_CACHE = join(import.meta.dirname, '../node_modules/.cache/compiled')
const main = join(import.meta.dirname, '../src/cli/main.ts')
const hako = (...args: string[]): Command => [process.execPath, ...nodeFlags, main, 'datastore', ...args]
const opened = ['--key-file', keyFile]
const newest = printPoint(nameOf(points - 1))
const works: readonly (readonly [string, number, Command])[] = [
  ['list', 300, hako('list', directory)],
  ['prune plan', 1_000, hako('prune', directory, '--keep-daily', '30', '--keep-weekly', '52', '--dry-run')],
  ['open one', 500, hako('show', directory, newest, ...opened)],
  ['collect garbage, nothing to do', 10_000, hako('gc', directory, ...opened)],
]
const samples = new Map<string, MeasuredFigures[]>()
for (let round = -1; round < rounds; round += 1) {
  for (const [name, , command] of works) {
    const figures = measured(name, command, scratch)
    // The first fills the page cache, and what is kept compiled.
    if (round >= 0) samples.set(name, [...(samples.get(name) ?? []), figures])
  }
}
measured('prune', hako('prune', directory, '--keep-daily', '30', '--keep-weekly', '52'), scratch)
const removal = measured('gc', hako('gc', directory, ...opened), scratch)
const line = (name: string, goal: number, all: readonly MeasuredFigures[]) => {
  const of = (which: keyof MeasuredFigures) => median(all.map((figures) => figures[which])).toFixed(0)
  return row(name, of('wallMs'), of('cpuMs'), String(goal), of('peakMiB'))
}
const lines = works.map(([name, goal]) => line(name, goal, samples.get(name) ?? []))
const last = line('collect garbage, most points pruned', 10_000, [removal])
table(row(`${points} points of ${tebibytes} TiB`, 'wall ms', 'CPU ms', 'goal', 'peak MiB'), [...lines, last])
