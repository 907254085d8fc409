/** The index made anew from the packs themselves: for when a segment is lost or damaged. */
import { Fault } from '#base/fault.ts'
import type { OpenDatastore } from '../datastore.ts'
import { goOn } from '../go-on.ts'
import { NewChunks } from '../packs/new-chunks.ts'
import { openPack } from '../packs/pack.ts'
import { type SegmentEntry, writeSegment } from './segment.ts'

const entriesPerSegment = 2 ** 20

export interface Repaired {
  readonly packs: number
  readonly chunks: number
  /** Names of packs whose tables cannot be read. */
  readonly damaged: readonly string[]
}

/** Cut off anywhere, the old index is still there beside what of the new one was written. */
export async function repairIndex(open: OpenDatastore, signal?: AbortSignal): Promise<Repaired> {
  const { place, deps } = open.datastore
  // Or every pack would look damaged.
  open.keyring.requireReading()
  const needs = { place, keyring: open.keyring, random: deps.random }
  const old: string[] = []
  for await (const { name } of place.list('segments/')) old.push(name)
  const made = new Set<string>()
  const damaged: string[] = []
  let [chunks, names] = [new NewChunks(), new Array<string>()]
  let [packs, count] = [0, 0]
  const flush = async () => {
    const placed = [...names]
    const entries = function* (): Generator<SegmentEntry> {
      for (const { pack, ...entry } of chunks.entries()) yield { ...entry, pack: placed[pack] ?? '' }
    }
    const name = await writeSegment(needs, chunks.count, [entries()], placed)
    if (name !== undefined) made.add(`segments/${name}`)
    count += chunks.count
    ;[chunks, names] = [new NewChunks(), []]
  }
  for await (const { name } of place.list('packs/')) {
    goOn(signal)
    const id = name.slice(-64)
    try {
      const { entries } = await openPack(place, open.keyring, id)
      const number = names.push(id) - 1
      for (const entry of entries) chunks.add(entry.id, number, entry)
      packs += 1
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      damaged.push(id)
    }
    if (chunks.count >= entriesPerSegment) await flush()
  }
  await flush()
  for (const name of old) if (!made.has(name)) await place.remove(name)
  await open.index.reload()
  return { packs, chunks: count, damaged }
}
