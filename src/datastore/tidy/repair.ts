/**
 * The index made whole from the packs themselves: of the parts that are damaged or lost, or of all there is.
 *
 * Only for who tidies alone. A collector of garbage that is at work drops packs from the index before it removes them; who read
 * their tables meanwhile would name what is about to go. Writers need not be waited for: a pack that is there is whole, whoever
 * put it, and may be named before its writer does so. What was garbage and is named again is condemned again.
 */
import { Fault, isFault } from '#base/fault.ts'
import type { OpenDatastore } from '../datastore.ts'
import { goOn } from '../go-on.ts'
import type { Lease } from '../places/lease.ts'
import { suspectsFolder } from '../index/chunk-index.ts'
import { type SegmentEntry, writeSegment } from '../index/segment.ts'
import { PackTables, unnamedPacks } from '../index/tables.ts'

const entriesPerSegment = 2 ** 20

export interface Repaired {
  readonly packs: number
  readonly chunks: number
  /** Names of packs whose tables cannot be read. */
  readonly damaged: readonly string[]
}

export interface Mended extends Repaired {
  /** Parts of the index that were not what was written. */
  readonly dropped: readonly string[]
}

/**
 * Makes all of it anew. Cut off anywhere, the old index is still there beside what of the new one was written.
 * @throws Fault `conflict` when somebody collects garbage
 */
export async function repairIndex(open: OpenDatastore, signal?: AbortSignal): Promise<Repaired> {
  const { place } = open.datastore
  // Or every pack would look damaged.
  open.keyring.requireReading()
  await using tidy = await open.datastore.tryTidy()
  if (!tidy) throw new Fault('conflict', 'garbage is being collected, or the index is being merged')
  const old: string[] = []
  for await (const { name } of place.list('segments/')) old.push(name)
  const { made, ...facts } = await namedAnew(open, tidy, await unnamedPacks(place, []), signal)
  for (const name of old) if (!made.has(name)) await place.remove(name)
  await open.index.renew()
  return facts
}

/**
 * For whoever finds the index damaged, in what they do for another reason: parts that are not what was written are replaced by
 * what the packs say that no other part names, and that is said.
 * @returns nothing when nothing was wrong, or where we cannot: others tidy up, or only they may
 */
export async function mendIndex(open: OpenDatastore, signal?: AbortSignal): Promise<Mended | undefined> {
  const { place, deps } = open.datastore
  if (!open.keyring.canRead || place.addsOnly === true) return undefined
  try {
    await using tidy = await open.datastore.tryTidy()
    return tidy && (await mendIndexAlone(open, tidy, signal))
  } catch (cause) {
    if (!(cause instanceof Fault) || isFault(cause, 'aborted')) throw cause
    deps.log.warn('the index of a datastore is damaged, and was not mended', { datastore: place.label, cause })
    return undefined
  }
}

/** As `mendIndex`, for who has the right to tidy already. */
export async function mendIndexAlone(
  open: OpenDatastore,
  lease: Lease,
  signal?: AbortSignal,
): Promise<Mended | undefined> {
  const { datastore, index, keyring } = open
  const { place, deps } = datastore
  await index.renew()
  await index.prove(keyring)
  const dropped = index.damaged
  const lost = await unnamedPacks(place, index.segments)
  if (dropped.length === 0 && lost.length === 0) return undefined
  const { made, ...facts } = await namedAnew(open, lease, lost, signal)
  for (const pack of facts.damaged) await place.put(`${suspectsFolder}${pack}`, Buffer.alloc(0))
  const { packs, chunks, damaged } = facts
  // Before it goes: who dies here has told of it.
  const what = dropped.length === 0 ? 'a part of it was gone' : `${dropped.length} parts of it were damaged`
  const left = damaged.length === 0 ? '' : `; ${damaged.length} packs are damaged themselves: ${damaged.join(', ')}`
  deps.log.tell?.(
    `the index of '${place.label}' mends itself: ${what}; ${chunks} chunks in ${packs} packs are named anew by what the packs say${left}`,
  )
  for (const name of dropped) if (!made.has(name)) await place.remove(name)
  await index.renew()
  deps.log.warn('the index of a datastore was damaged, and is mended from the packs', {
    datastore: place.label,
    ...(dropped.length > 0 && { parts: dropped.join(', ') }),
    packs,
    chunks,
    ...(damaged.length > 0 && { damaged: damaged.join(', ') }),
  })
  return { ...facts, dropped }
}

async function namedAnew(open: OpenDatastore, lease: Lease, packs: readonly string[], signal: AbortSignal | undefined) {
  const { place, deps } = open.datastore
  const needs = { place, keyring: open.keyring, random: deps.random, lease }
  const made = new Set<string>()
  const damaged: string[] = []
  let tables = new PackTables(place, open.keyring)
  let [count, chunks] = [0, 0]
  const flush = async () => {
    const { chunks: held, packs: names } = tables
    const entries = function* (): Generator<SegmentEntry> {
      for (const { pack, ...entry } of held.entries()) yield { ...entry, pack: names[pack] ?? '' }
    }
    const name = await writeSegment(needs, held.count, [entries()], names, true)
    if (name !== undefined) made.add(`segments/${name}`)
    damaged.push(...tables.damaged)
    chunks += held.count
    count += names.length
    tables = new PackTables(place, open.keyring)
  }
  for (const pack of packs) {
    goOn(signal)
    await tables.add(pack)
    if (tables.chunks.count >= entriesPerSegment) await flush()
  }
  await flush()
  return { made, packs: count, chunks, damaged }
}
