/** What a collection of garbage would find now, without a trace in the datastore. */
import { isFault } from '#base/fault.ts'
import type { OpenDatastore } from '../datastore.ts'
import { liveLeases } from '../places/lease.ts'
import { packName } from '../packs/pack.ts'
import { ownBody } from './own-body.ts'
import { LiveChunks } from '../tidy/live-chunks.ts'
import { thinPacks } from './thin-packs.ts'
import { Watched, type Watching } from './watched.ts'

export interface GarbagePreview {
  readonly chunks: number
  readonly liveChunks: number
  /** That no backup needs. */
  readonly deadChunks: number
  /** Packs with nothing else in them, and such that no part of the index names. */
  readonly deadPacks: number
  /** Packs with so little else in them that it is written anew. */
  readonly thinPacks: number
  /** What that gives back; what is dead in other packs stays. */
  readonly freeableBytes: number
  /** Who writes or reads now: what they may rely on goes later. */
  readonly atWork: number
}

/** @throws Fault `damaged` when a manifest or map cannot be read: then nothing would be collected */
export async function previewGarbage(open: OpenDatastore, options: Watching = {}): Promise<GarbagePreview> {
  open.keyring.requireReading()
  const { datastore, index } = open
  const { place, deps } = datastore
  const watched = new Watched(options)
  await index.reload()
  const { segments } = index
  const live = await markedBy(open, watched)
  const [living, dead] = [new Map<string, number>(), new Map<string, number>()]
  let deadChunks = 0
  for await (const entries of watched.entriesOf(segments)) {
    for (const { id, pack, length } of entries) {
      const sums = live.has(id) ? living : dead
      sums.set(pack, (sums.get(pack) ?? 0) + length)
      if (sums === dead) deadChunks += 1
    }
  }
  const named = new Set(segments.flatMap(({ packs }) => packs))
  const gone = [...dead.keys()].filter((pack) => !living.has(pack))
  for await (const { name } of place.list('packs/')) if (!named.has(name.slice(-64))) gone.push(name.slice(-64))
  const thin = await thinPacks(open, dead.keys(), living)
  let freeableBytes = thin.reduce((sum, pack) => sum + (dead.get(pack) ?? 0), 0)
  for (const pack of gone) freeableBytes += await place.sizeOf(packName(pack)).catch(zeroWhereGone)
  const atWork = (await liveLeases({ place, ...deps })).filter(({ kind }) => kind !== 'collect').length
  const counts = { chunks: live.count, liveChunks: live.live, deadChunks }
  return { ...counts, deadPacks: gone.length, thinPacks: thin.length, freeableBytes, atWork }
}

async function markedBy(open: OpenDatastore, watched: Watched): Promise<LiveChunks> {
  const live = await LiveChunks.of(open.index.segments)
  const points = await open.datastore.points()
  for (const [looked, point] of points.entries()) {
    watched.goOn()
    const body = await ownBody(open, point)
    if (body) await live.mark(open, body)
    watched.tell('backups', looked + 1, points.length)
  }
  return live
}

function zeroWhereGone(fault: unknown): number {
  if (isFault(fault, 'missing')) return 0
  throw fault
}
