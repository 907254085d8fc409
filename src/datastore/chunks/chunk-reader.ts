/**
 * Chunks by their ids. What comes back was sealed under that id by somebody who had the keys, or a fault says which pack
 * is damaged.
 *
 * A pack that is gone was written anew by somebody who collected garbage; then the index knows where its chunks are now.
 */
import { KiB, MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { ChunkIndex } from '../index/chunk-index.ts'
import { type ChunkKind, deltaFlag, kindOf, kinds, shortIdBytes } from '../format.ts'
import type { Keyring } from '../keys/keyring.ts'
import { letGo } from '#base/let-go.ts'
import { damagedPack, type OpenPack, openPack, type PackEntry, readMore, readPack, unseal } from '../packs/pack.ts'
import type { Place } from '../places/place.ts'
import { RecentPieces } from './recent-pieces.ts'
import type { Location } from '../index/segment.ts'
import { contentOf } from '../packs/stored-form.ts'

/** Tables of packs kept, some 12 KiB each. */
const packsKept = 256
/** More than the deltas a piece of a map may be made of: each lies in another pack. */
const packsAtHand = 32
const attempts = 4
/** Of a pack that is written anew, read at once. */
const runBytes = 1 * MiB
/** Of a pack of maps and trees, read at once; and what nobody wants is read when it is less. */
const nearBytes = 32 * KiB

export interface ReadChunk {
  readonly content: Buffer
  readonly flags: number
}

/** Kept from one run to the next: fresh memory would be filled with zeros first. */
export interface RunRoom {
  /** For a run as it lies in its pack. */
  readonly sealed: Buffer
  /** For what is in it. */
  readonly content: Buffer
}

export interface ChunkReaderNeeds {
  readonly place: Place
  readonly keyring: Keyring
  readonly index: ChunkIndex
  /** Nothing is found because of what was read before it: for who proves that the index names everything. */
  readonly isByIndexAlone?: boolean
}

export class ChunkReader {
  readonly place: Place
  readonly keyring: Keyring
  readonly index: ChunkIndex
  readonly #packs = new Map<string, Promise<OpenPack>>()
  readonly pieces = new RecentPieces()
  #near: readonly { readonly pack: string; readonly from: number; readonly bytes: Buffer }[] = []
  /** As long as the packs are kept. */
  readonly #tables = new WeakMap<OpenPack, ReadonlyMap<string, PackEntry>>()
  readonly #isByIndexAlone: boolean
  /** What was read from last, the latest first. */
  #lately: readonly { readonly pack: string; readonly table: ReadonlyMap<string, PackEntry> }[] = []

  constructor(needs: ChunkReaderNeeds) {
    this.place = needs.place
    this.keyring = needs.keyring
    this.index = needs.index
    this.#isByIndexAlone = needs.isByIndexAlone ?? false
  }

  /** @throws Fault `damaged` when no pack has it */
  async locate(id: Buffer): Promise<Location> {
    const location = this.#isByIndexAlone ? undefined : this.#besideLast(id)
    if (location) return location
    try {
      return await this.#indexed(id)
    } catch (fault) {
      const found = isFault(fault, 'damaged') ? await this.index.findBehind(id, this.keyring) : undefined
      if (found) return found
      throw fault
    }
  }

  async #indexed(id: Buffer): Promise<Location> {
    const location = await this.index.find(id)
    if (location) return location
    // While parts of it are merged a look may miss the old ones and the new one: what moves is looked at again.
    for (let [attempt, isMoving] = [1, true]; isMoving && attempt <= attempts; attempt += 1) {
      isMoving = await this.index.reload()
      const found = await this.index.find(id)
      if (found) return found
    }
    throw new Fault('damaged', `chunk ${shown(id)} is in no pack of the datastore`, {
      remedy: 'Verify the datastore to see which backups are hit, and back up those guests again.',
    })
  }

  /** Most chunks lie in the pack the last one lay in: its table is at hand, and spares a look at the index. */
  #besideLast(id: Buffer): Location | undefined {
    const key = id.toString('latin1', 0, shortIdBytes)
    for (const { pack, table } of this.#lately) {
      const entry = table.get(key)
      if (entry && !this.index.isBad(pack)) return { ...entry, pack }
    }
    return undefined
  }

  /** @param id 16 bytes or more. @throws Fault `damaged` naming chunk and pack */
  async read(id: Buffer, kind: ChunkKind): Promise<ReadChunk> {
    for (let attempt = 1; ; attempt += 1) {
      const location = await this.locate(id)
      try {
        const [chunk] = await this.readRun([{ id, location }], kind)
        if (chunk) return chunk
      } catch (fault) {
        if (isFault(fault, 'damaged')) return await this.#readElsewhere(id, kind, location, fault)
        if (!isFault(fault, 'missing')) throw fault
        if (attempt === attempts) throw goneFault(location.pack, fault)
        await this.miss(location.pack)
      }
    }
  }

  /** What is not where the index says may be where the pack says. @throws what was said of the place where it was looked for */
  async #readElsewhere(id: Buffer, kind: ChunkKind, said: Location, fault: unknown): Promise<ReadChunk> {
    const location = await this.index.findBehind(id, this.keyring)
    if (!location || (location.pack === said.pack && location.offset === said.offset)) throw fault
    const [chunk] = await this.readRun([{ id, location }], kind)
    if (chunk) return chunk
    throw fault
  }

  /**
   * Chunks one behind another in one pack, by one read.
   * @param room where their contents are put, one behind another; without it each has room of its own
   * @throws Fault `missing` when the pack is gone: look where they are now; `damaged` naming chunk and pack
   */
  async readRun(
    run: readonly { readonly id: Buffer; readonly location: Location }[],
    kind: ChunkKind,
    room?: RunRoom,
  ): Promise<ReadChunk[]> {
    let used = 0
    const [first, last] = [run[0]?.location, run.at(-1)?.location]
    if (!first || !last) return []
    const pack = await this.#pack(first.pack)
    this.#remember(first.pack, pack)
    const end = last.offset + last.length
    const bytes = pack.isMetadata
      ? await this.#readNear(first.pack, pack, first.offset, end)
      : await readPack(this.place, first.pack, first.offset, end - first.offset, room?.sealed)
    const chunks = run.map(({ id, location: { offset, length } }) => {
      const entry = entryAt(pack, offset)
      if (!entry || entry.length !== length || entry.id.compare(id, 0, shortIdBytes, 0, shortIdBytes) !== 0) {
        throw damagedPack(first.pack, `chunk ${shown(id)} is not where the index says`)
      }
      const from = offset - first.offset
      const into = room?.content.subarray(used, used + entry.plainBytes)
      used += entry.plainBytes
      return this.#opened(pack, first.pack, entry, { sealed: bytes.subarray(from, from + length), kind, into })
    })
    if (!pack.isMetadata && !room) letGo(bytes)
    return chunks
  }

  /** Maps and trees are small and read one behind another: a little more is read, and kept for the next. */
  async #readNear(id: string, pack: OpenPack, from: number, to: number): Promise<Buffer> {
    const known = this.#near.find((one) => one.pack === id && from >= one.from && to <= one.from + one.bytes.length)
    if (known) return known.bytes.subarray(from - known.from, to - known.from)
    const last = pack.entries.at(-1)
    const end = last ? last.offset + last.length : to
    const near = from + (this.place.nearBytes ?? nearBytes)
    const bytes = await readMore(
      () => readPack(this.place, id, from, Math.max(to, Math.min(end, near)) - from),
      () => readPack(this.place, id, from, to - from),
    )
    this.#near = [{ pack: id, from, bytes }, ...this.#near.slice(0, packsAtHand - 1)]
    return bytes.subarray(0, to - from)
  }

  #opened(
    pack: OpenPack,
    packId: string,
    entry: PackEntry,
    { sealed, kind, into }: { readonly sealed: Buffer; readonly kind: ChunkKind; readonly into: Buffer | undefined },
  ): ReadChunk {
    const damaged = (how: string) => damagedPack(packId, `chunk ${shown(entry.id)}: ${how}`)
    const stored = unseal(pack, entry, sealed)
    if (!stored) throw damaged('its seal is broken')
    if (kindOf(entry.flags) !== kind) throw damaged(`it is of kind ${kindOf(entry.flags)} instead of ${kind}`)
    const content = unpacked(packId, entry, stored, into)
    if (content !== stored) letGo(stored)
    if (pack.isInbox) this.#checkName(packId, entry, content)
    return { content, flags: entry.flags }
  }

  /** A host that only adds could call things by others' names, and spoil what those rely on. */
  #checkName(packId: string, { id, flags }: PackEntry, content: Buffer): void {
    const isOwn =
      (flags & deltaFlag) === 0 && isOfKind(flags) && this.keyring.isIdOf(id, kindOf(flags) as ChunkKind, content)
    if (!isOwn) throw damagedPack(packId, `chunk ${shown(id)}: it holds what belongs to another id`)
  }

  /** By a host that only adds. @throws Fault `missing`, `damaged` */
  async isInbox(packId: string): Promise<boolean> {
    return (await this.#pack(packId)).isInbox
  }

  /** Chunks of a pack in their stored form, to be written into another. @throws Fault `damaged` naming the pack */
  async storedIn(
    packId: string,
    isWanted: (entry: PackEntry) => boolean | Promise<boolean>,
  ): Promise<{ readonly id: Buffer; readonly stored: Buffer; readonly plainBytes: number; readonly flags: number }[]> {
    // Asked for once: its table would push out those that are of use.
    const pack = await openPack(this.place, this.keyring, packId)
    const found = []
    const wanted: PackEntry[] = []
    for (const entry of pack.entries) if (await isWanted(entry)) wanted.push(entry)
    for (const run of runsOf(wanted)) {
      const [from, last] = [run[0]?.offset ?? 0, run.at(-1)]
      const bytes = await readPack(this.place, packId, from, last ? last.offset + last.length - from : 0)
      for (const entry of run) {
        const at = entry.offset - from
        const stored = unseal(pack, entry, bytes.subarray(at, at + entry.length))
        if (!stored) throw damagedPack(packId, `chunk ${shown(entry.id)}: its seal is broken`)
        if (pack.isInbox) this.#checkName(packId, entry, unpacked(packId, entry, stored))
        found.push({ ...entry, stored })
      }
      letGo(bytes)
    }
    return found
  }

  /** @throws Fault `damaged` when the content does not make the id */
  check(id: Buffer, { content, flags }: ReadChunk): void {
    // The id of a delta is that of what it comes to.
    if (flags & deltaFlag) return
    if (isOfKind(flags) && !this.keyring.isIdOf(id.subarray(0, shortIdBytes), kindOf(flags) as ChunkKind, content)) {
      throw new Fault('damaged', `chunk ${shown(id)} holds what belongs to another id`)
    }
  }

  #remember(id: string, pack: OpenPack): void {
    if (this.#lately.some((one) => one.pack === id)) return
    const table = this.#tables.get(pack) ?? tableOf(pack)
    this.#tables.set(pack, table)
    this.#lately = [{ pack: id, table }, ...this.#lately.slice(0, packsAtHand - 1)]
  }

  async #pack(id: string): Promise<OpenPack> {
    const known = this.#packs.get(id)
    if (known) {
      // Put last again: the first is the one to go.
      this.#packs.delete(id)
      this.#packs.set(id, known)
      return known
    }
    const opening = openPack(this.place, this.keyring, id)
    opening.catch(() => this.#packs.delete(id))
    this.#packs.set(id, opening)
    const [oldest] = this.#packs.keys()
    if (this.#packs.size > packsKept && oldest !== undefined) this.#packs.delete(oldest)
    return opening
  }

  /** A pack is gone: its chunks lie elsewhere now. */
  async miss(pack: string): Promise<void> {
    this.#packs.delete(pack)
    this.#lately = this.#lately.filter((one) => one.pack !== pack)
    this.#near = this.#near.filter((one) => one.pack !== pack)
    this.index.missPack(pack)
    await this.index.reload()
  }
}

/** @param into where it is put; without it what was not packed is its own content. @throws Fault `damaged` naming chunk and pack */
function unpacked(pack: string, { id, flags, plainBytes }: PackEntry, stored: Buffer, into?: Buffer): Buffer {
  try {
    const content = contentOf(stored, flags, plainBytes, into)
    if (into && content === stored) into.set(stored)
    return into ?? content
  } catch (cause) {
    throw damagedPack(pack, `chunk ${shown(id)}: it cannot be decompressed`, cause)
  }
}

function tableOf({ entries }: OpenPack): ReadonlyMap<string, PackEntry> {
  return new Map(entries.map((entry) => [entry.id.toString('latin1', 0, shortIdBytes), entry]))
}

/** Chunks one behind another, or nearly so, to be read at once. */
function runsOf(entries: readonly PackEntry[]): PackEntry[][] {
  const runs: PackEntry[][] = []
  let [from, end] = [0, -1]
  for (const entry of entries) {
    const last = runs.at(-1)
    if (last && entry.offset - end < nearBytes && entry.offset - from < runBytes) last.push(entry)
    else {
      runs.push([entry])
      from = entry.offset
    }
    end = entry.offset + entry.length
  }
  return runs
}

function isOfKind(flags: number): boolean {
  return Object.values(kinds).some((kind) => kind === kindOf(flags))
}

function entryAt(pack: OpenPack, offset: number): PackEntry | undefined {
  const number = pack.numberAt.get(offset)
  return number === undefined ? undefined : pack.entries[number]
}

function goneFault(pack: string, cause: unknown): Fault {
  return damagedPack(pack, 'it is not there', cause)
}

export function shown(id: Buffer): string {
  return id.toString('hex', 0, shortIdBytes)
}
