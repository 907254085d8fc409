/**
 * Finds what is damaged before somebody needs it. Packs are proven by their names, without a key; backups by reading all
 * they need. What is damaged is marked, so that the next backup stores anew what the guest still has of it.
 */
import { seconds } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { isAsNamed } from '../packs/as-named.ts'
import { byIndexAlone } from './by-index.ts'
import { readChecked, writeChecked } from './last-looks.ts'
import { ChunkIndex, suspectsFolder } from '../index/chunk-index.ts'
import { condemnedLists } from '../index/condemned.ts'
import { Damages } from './damages.ts'
import type { Datastore, OpenDatastore } from '../datastore.ts'
import { kinds } from '../format.ts'
import { ForeignFault } from '../foreign.ts'
import { goOn } from '../go-on.ts'
import { gonePacks } from './gone-packs.ts'
import { ifAllowed, type Onlooker } from './if-allowed.ts'
import { letGo } from '#base/let-go.ts'
import type { ManifestDisk } from '../points/manifest.ts'
import { printPoint, type RestorePoint } from '../point.ts'
import { chunksToRead } from '../chunks/planned.ts'
import { chunksOfTree } from '../tree/verify.ts'

export interface VerifyOptions extends Onlooker {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((done: number, all: number) => void) | undefined
}

export interface VerifyPacksOptions extends VerifyOptions {
  /** No further pack is begun after this long; the oldest come first, so the next run goes on where this one ended. */
  readonly budgetMs?: number | undefined
  /** No further pack is begun once so much was read. */
  readonly budgetBytes?: number | undefined
}

export interface VerifiedPacks {
  readonly packs: number
  readonly bytes: number
  /** Names of packs that are not what they were, or not there though the index names them. */
  readonly damaged: readonly string[]
  /** Packs the budget left for the next time. */
  readonly left: number
  /** When the pack was looked at that nobody has looked at for longest, in seconds since 1970; absent: never. */
  readonly oldest?: number
}

const remembersEveryMs = 60_000

/** Reads packs, those first that were not for longest. Needs no key, so a copy can be checked where nobody may read it. */
export async function verifyPacks(datastore: Datastore, options: VerifyPacksOptions = {}): Promise<VerifiedPacks> {
  const { place, deps } = datastore
  const { budgetMs = Infinity, budgetBytes = Infinity } = options
  const startedMs = deps.clock.monotonic()
  const checked = await readChecked(place)
  const packs: { name: string; sizeBytes: number; id: string }[] = []
  for await (const pack of place.list('packs/')) packs.push({ ...pack, id: pack.name.slice(-64) })
  const timeOf = ({ id }: { readonly id: string }) => checked.get(id) ?? 0
  // Of a clock that was wrong, or of a bit that is: such a pack would never have its turn.
  for (const [id, time] of checked) if (time > seconds(deps.clock)) checked.delete(id)
  packs.sort((a, b) => timeOf(a) - timeOf(b))
  const there = new Set(packs.map(({ id }) => id))
  for (const id of checked.keys()) if (!there.has(id)) checked.delete(id)
  const all = packs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const damaged = await lostPacks(datastore, options)
  let [done, count, rememberedMs] = [0, 0, startedMs]
  try {
    for (const { name, sizeBytes, id } of packs) {
      goOn(options.signal)
      const nowMs = deps.clock.monotonic()
      if (nowMs - startedMs >= budgetMs || done >= budgetBytes) break
      if (nowMs - rememberedMs >= remembersEveryMs) {
        await writeChecked(place, checked, options)
        rememberedMs = nowMs
      }
      if (!(await checkPack(datastore, { name, sizeBytes, id }, options))) damaged.push(id)
      checked.set(id, seconds(deps.clock))
      done += sizeBytes
      count += 1
      options.onProgress?.(done, Math.min(all, budgetBytes))
    }
  } finally {
    await writeChecked(place, checked, options)
  }
  const oldest = Math.min(...packs.map(timeOf))
  return {
    packs: count,
    bytes: done,
    damaged,
    left: packs.length - count,
    ...(oldest > 0 && oldest < Infinity && { oldest }),
  }
}

/** Marks them, so that nobody relies on them. Those a collector of garbage has removed, and not yet the entries of, are no loss. */
async function lostPacks({ place, deps }: Datastore, onlooker: Onlooker): Promise<string[]> {
  const index = await ChunkIndex.open(place, deps.log)
  const gone = await gonePacks(place, index.segments)
  if (gone.length === 0) return []
  const condemned = await condemnedLists(place)
  await index.reload()
  const named = new Set(index.segments.flatMap(({ packs }) => packs))
  const lost = gone.filter((pack) => named.has(pack) && !condemned.some((list) => list.names(pack)))
  for (const pack of lost) await ifAllowed(onlooker, () => place.put(`${suspectsFolder}${pack}`, Buffer.alloc(0)))
  return lost
}

/** Marks it where it is damaged, and takes the mark away where it is whole. */
async function checkPack(
  datastore: Datastore,
  pack: { name: string; sizeBytes: number; id: string },
  onlooker: Onlooker,
): Promise<boolean> {
  const { place } = datastore
  const isWhole = await isAsNamed(place, pack.name, pack.sizeBytes)
  const mark = `${suspectsFolder}${pack.id}`
  await ifAllowed(onlooker, () => (isWhole ? place.remove(mark) : place.put(mark, Buffer.alloc(0))))
  return isWhole
}

/** Whether each part of the index is what somebody with the keys wrote. @returns the damage of those that are not */
export async function verifyIndex(open: OpenDatastore): Promise<string[]> {
  await open.index.renew()
  await open.index.prove(open.keyring)
  return [...open.index.damage]
}

export interface VerifiedBackup {
  readonly chunks: number
  readonly bytes: number
}

/** A verdict, and no failure to reach one. What neither signature nor seal says is of this datastore is `denied`, too. */
export function isDamage(fault: unknown): fault is Fault {
  return isFault(fault, 'damaged') || fault instanceof ForeignFault
}

/**
 * Reads all a restore would need, and more: every chunk is checked against its id.
 * @throws Fault `damaged` naming what; it is kept with the backup
 */
export async function verifyBackup(
  open: OpenDatastore,
  point: RestorePoint,
  options: VerifyOptions = {},
): Promise<VerifiedBackup> {
  const { datastore } = open
  const verified = seconds(datastore.deps.clock)
  try {
    const result = await readAll(byIndexAlone(open), point, options)
    await ifAllowed(options, () => datastore.mark(point, { verified, damage: undefined }))
    return result
  } catch (fault) {
    if (isFault(fault, 'damaged')) {
      const damage = fault.message.slice(0, 1_000)
      await ifAllowed(options, () => datastore.mark(point, { verified, damage })).catch(() => {})
      for (const [, pack = ''] of fault.message.matchAll(/\bpack ([0-9a-f]{64}) /g)) {
        await ifAllowed(options, () => datastore.place.put(`${suspectsFolder}${pack}`, Buffer.alloc(0)))
      }
    }
    throw fault
  }
}

async function readAll(open: OpenDatastore, point: RestorePoint, options: VerifyOptions): Promise<VerifiedBackup> {
  await using reader = await open.open(point)
  const parts = [...reader.body.disks, ...reader.body.trees]
  const all = parts.reduce((sum, { dataBytes }) => sum + dataBytes, 0)
  let [chunks, bytes] = [0, 0]
  const damages = new Damages(`backup ${printPoint(point)}`)
  for (const { name } of reader.body.files) {
    await damages.noted(async () => {
      bytes += (await reader.file(name)).length
    })
  }
  const check = async (disk: ManifestDisk, position: number, id: Buffer) => {
    const chunk = await open.chunks.read(id, kinds.content)
    open.chunks.check(id, chunk)
    const wanted = Math.min(reader.chunkBytes, disk.sizeBytes - position * reader.chunkBytes)
    if (chunk.content.length !== wanted) {
      throw new Fault(
        'damaged',
        `chunk ${position} of disk ${disk.name} of backup ${printPoint(point)} has another size`,
      )
    }
    bytes += chunk.content.length
    letGo(chunk.content)
  }
  for (const disk of reader.body.disks) {
    await damages.noted(async () => {
      const map = await reader.mapOf(disk.name)
      for await (const { position, id } of chunksToRead(open.chunks, map.entries())) {
        goOn(options.signal)
        await damages.noted(() => check(disk, position, id))
        chunks += 1
        if (chunks % 64 === 0) options.onProgress?.(bytes, all)
      }
    })
  }
  const checkContent = async (id: Buffer) => {
    const chunk = await open.chunks.read(id, kinds.content)
    open.chunks.check(id, chunk)
    letGo(chunk.content)
  }
  for (const { name } of reader.body.trees) {
    await damages.noted(async () => {
      const named = chunksOfTree(reader.tree(name), (damage) => damages.add(damage.message))
      for await (const chunk of chunksToRead(open.chunks, named)) {
        goOn(options.signal)
        await damages.noted(() => checkContent(chunk.id))
        chunks += 1
        bytes += chunk.bytes
        if (chunks % 64 === 0) options.onProgress?.(bytes, all)
      }
    })
  }
  damages.throwIfAny()
  return { chunks, bytes }
}
