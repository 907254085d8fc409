/** Looks at every file of a datastore, also at what no backup needs any more, and says which backups damage hits. */
import { isFault, messageOf } from '#base/fault.ts'
import { Damages } from './damages.ts'
import type { OpenDatastore } from '../datastore.ts'
import { isRefused } from '../foreign.ts'
import { goOn } from '../go-on.ts'
import { gonePacks } from './gone-packs.ts'
import { listOpened } from '../points/listing.ts'
import { LiveChunks } from '../tidy/live-chunks.ts'
import { allEntries } from '../index/merge.ts'
import { printPoint } from '../point.ts'
import { verifyPacks } from './verify.ts'
import { checkedIndex } from './whole-index.ts'

export interface VerifyDatastoreOptions {
  readonly signal?: AbortSignal | undefined
  /** Share of the work done, 0 to 1, and bytes that were read. */
  readonly onProgress?: ((fraction: number, bytes: number) => void) | undefined
}

export interface VerifiedDatastore {
  readonly backups: number
  readonly packs: number
  /** What was wrong with the index, and is no more. */
  readonly mended: readonly string[]
}

/** @throws Fault `damaged` naming each damaged file, and the backups that are hit */
export async function verifyDatastore(
  open: OpenDatastore,
  { signal, onProgress }: VerifyDatastoreOptions = {},
): Promise<VerifiedDatastore> {
  const { datastore } = open
  const damages = new Damages(`datastore '${datastore.place.label}'`)
  const { damage: ofIndex, mended } = await checkedIndex(open, signal)
  for (const damage of ofIndex) damages.add(damage)
  const listed = await listOpened(datastore, open.keyring)
  for (const { fault } of listed) {
    if (fault === undefined) continue
    if (isRefused(fault)) throw fault
    damages.add(messageOf(fault))
  }
  const { packs, damaged } = await verifyPacks(datastore, {
    signal,
    onProgress: (done, all) => onProgress?.(done / Math.max(1, all), done),
  })
  await open.index.reload()
  const gone = new Set(await gonePacks(datastore.place, open.index.segments))
  const hit = await hitsByPack(open, new Set(damaged), signal)
  const said = (pack: string, how: string) => {
    const names = hit.get(pack) ?? []
    damages.add(`pack ${pack} is ${how}${names.length > 0 ? ` (hits ${names.join(', ')})` : ''}`)
  }
  for (const pack of damaged) said(pack, gone.has(pack) ? 'gone' : 'damaged: its digest does not match')
  damages.throwIfAny()
  return { backups: listed.length, packs, mended }
}

/** Of each pack the backups that need what is nowhere else. */
async function hitsByPack(
  open: OpenDatastore,
  packs: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<Map<string, string[]>> {
  const hit = new Map<string, string[]>()
  if (packs.size === 0) return hit
  await open.index.reload()
  const { segments } = open.index
  const onlyThere = new Map<string, { readonly id: Buffer; readonly pack: string }>()
  for await (const entries of allEntries(segments)) {
    for (const { id, pack } of entries) {
      if (packs.has(pack)) onlyThere.set(id.toString('hex'), { id: Buffer.from(id), pack })
    }
  }
  for await (const entries of allEntries(segments)) {
    for (const { id, pack } of entries) if (!packs.has(pack)) onlyThere.delete(id.toString('hex'))
  }
  const live = await LiveChunks.of(segments)
  for (const point of await open.datastore.points()) {
    goOn(signal)
    live.forget()
    const needed = new Set<string>()
    try {
      await live.mark(open, await open.body(point))
    } catch (fault) {
      if (isFault(fault, 'missing')) continue
      if (!isFault(fault, 'damaged') && !isFault(fault, 'denied')) throw fault
      // What it needs cannot be said any more, because of what is damaged.
      for (const pack of packs) if (fault.message.includes(pack)) needed.add(pack)
    }
    for (const { id, pack } of onlyThere.values()) if (live.has(id)) needed.add(pack)
    for (const pack of needed) hit.set(pack, [...(hit.get(pack) ?? []), printPoint(point)])
  }
  return hit
}
