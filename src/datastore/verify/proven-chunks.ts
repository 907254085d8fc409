/**
 * Which chunks are what they were, and where the index says: every pack is read once from its beginning to its end, and each
 * chunk in it compared with its seal and its id. What backups need is then looked up instead of read again for each of them.
 *
 * Names of packs are left to who has no key (`verifyPacks`): every byte lies under a seal or is compared with what must be
 * there (`openPack`), so a digest over all of them again would find nothing more. That a pack has the name of another is seen
 * by what the index says of its chunks.
 */
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { letGo } from '#base/let-go.ts'
import { alignedBuffer, blockBytes } from '#host/files/direct-file.ts'
import { suspectsFolder } from '../index/chunk-index.ts'
import { ChunkOrdinals, mostOf } from '../index/ordinals.ts'
import type { OpenDatastore } from '../datastore.ts'
import { type ChunkKind, deltaFlag, kindOf, metadataMaximumBytes } from '../format.ts'
import { goOn } from '../go-on.ts'
import { isRefused } from '../foreign.ts'
import { ifAllowed } from './if-allowed.ts'
import type { Keyring } from '../keys/keyring.ts'
import { type OpenPack, openPack, type PackEntry, packName, unseal } from '../packs/pack.ts'
import type { Place, PlacedObject } from '../places/place.ts'
import { contentOf } from '../packs/stored-form.ts'
import type { VerifyOptions } from './verify.ts'
import { readAhead } from '../window.ts'

/** Read at once, give or take a chunk. */
const step = 1 * MiB
const readsAhead = 2

const states = { unproven: 0, proven: 1, full: 2 } as const
/** Of what is kept of each chunk; above them where it lies, as `PlaceMarks` has it. */
const stateBits = 2

export class ProvenChunks {
  readonly #ordinals: ChunkOrdinals
  readonly #known: Uint16Array
  /** Packs in which damage was seen. */
  readonly damaged: readonly string[]
  /** Why packs were not read to which access is refused, each by itself. */
  readonly unread: readonly string[]

  private constructor(
    ordinals: ChunkOrdinals,
    known: Uint16Array,
    { damaged, unread }: Pick<ProvenChunks, 'damaged' | 'unread'>,
  ) {
    this.#ordinals = ordinals
    this.#known = known
    this.damaged = damaged
    this.unread = unread
  }

  /** Reads all there is, and marks the packs in which damage is seen. */
  static async of(open: OpenDatastore, options: VerifyOptions = {}): Promise<ProvenChunks> {
    const { signal, onProgress } = options
    const { place, facts } = open.datastore
    const packs: PlacedObject[] = []
    for await (const pack of place.list('packs/')) packs.push(pack)
    await open.index.reload()
    const marks = new PlaceMarks()
    const known = new Uint16Array(mostOf(open.index.segments))
    const ordinals = await ChunkOrdinals.of(open.index.segments, ({ pack, offset }, ordinal) => {
      known[ordinal] = marks.of(pack, offset) << stateBits
    })
    const [damaged, unread]: [string[], string[]] = [[], []]
    // Kept from one read to the next: fresh memory would be filled with zeros first. What is read begins and ends within blocks.
    const roomBytes = step + metadataMaximumBytes + 2 * blockBytes
    const rooms = Array.from({ length: readsAhead + 1 }, () => alignedBuffer(roomBytes))
    using undo = new DisposableStack()
    undo.defer(() => rooms.forEach((room) => letGo(room)))
    const all = packs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    let done = 0
    for (const pack of packs) {
      goOn(signal)
      const id = pack.name.slice(-64)
      const onProven = (entry: PackEntry) => {
        const ordinal = ordinals.of(entry.id)
        const mark = marks.of(id, entry.offset)
        if (ordinal === undefined || (known[ordinal] ?? 0) >> stateBits !== mark) return
        known[ordinal] = (mark << stateBits) | (entry.plainBytes === facts.chunkBytes ? states.full : states.proven)
      }
      const isWhole = await new PackProof(place, open.keyring, id, rooms).run(onProven).catch((fault: unknown) => {
        if (!isRefused(fault)) throw fault
        unread.push(fault.message)
      })
      const suspect = `${suspectsFolder}${id}`
      if (isWhole === true) await ifAllowed(options, () => place.remove(suspect))
      else if (isWhole === false) {
        damaged.push(id)
        await ifAllowed(options, () => place.put(suspect, Buffer.alloc(0)))
      }
      done += pack.sizeBytes
      onProgress?.(done, all)
    }
    return new ProvenChunks(ordinals, known, { damaged, unread })
  }

  /** @param isFull its content must be as long as chunks of disks are */
  has(id: Buffer, isFull: boolean): boolean {
    const ordinal = this.#ordinals.of(id)
    const state = ordinal === undefined ? states.unproven : (this.#known[ordinal] ?? 0) % 2 ** stateBits
    return state === states.full || (state === states.proven && !isFull)
  }
}

/**
 * A place in 14 bits: enough to see that a chunk is not where it should be, as one of so many that is elsewhere looks as if
 * it were, and a pack has hundreds. Of names that differ in one bit no two have the same.
 */
class PlaceMarks {
  readonly #ofPacks = new Map<string, number>()

  of(pack: string, offset: number): number {
    let mark = this.#ofPacks.get(pack)
    if (mark === undefined) {
      mark = 0
      for (let at = 0; at < pack.length; at += 7) mark ^= Number.parseInt(pack.slice(at, at + 7), 16)
      mark = (mark ^ (mark >>> 14)) & (2 ** 14 - 1)
      this.#ofPacks.set(pack, mark)
    }
    return mark ^ (Math.imul(offset, 0x9e3779b1) >>> 18)
  }
}

/** Where content is unpacked to be looked at. */
const room = Buffer.allocUnsafeSlow(metadataMaximumBytes)

class PackProof {
  readonly #place: Place
  readonly #keyring: Keyring
  readonly #id: string
  readonly #rooms: readonly Buffer[]

  constructor(place: Place, keyring: Keyring, id: string, rooms: readonly Buffer[]) {
    this.#place = place
    this.#keyring = keyring
    this.#id = id
    this.#rooms = rooms
  }

  /** @returns whether the pack is whole; nothing when it is gone */
  async run(onProven: (entry: PackEntry) => void): Promise<boolean | undefined> {
    try {
      return await this.#readChunks(await openPack(this.#place, this.#keyring, this.#id), onProven)
    } catch (fault) {
      if (isFault(fault, 'missing')) return undefined
      if (isFault(fault, 'damaged')) return false
      throw fault
    }
  }

  async #readChunks(pack: OpenPack, onProven: (entry: PackEntry) => void): Promise<boolean> {
    let [isWhole, turn] = [true, 0]
    const [all, name] = [groupsOf(pack.entries), packName(this.#id)]
    using plan = this.#place.plan?.()
    for (const { from, length } of all) plan?.add(name, from, length)
    const groups = readAhead(all, readsAhead, async ({ group, from, length }) => {
      const reading = this.#rooms[turn++ % this.#rooms.length]
      return { group, from, reading, bytes: await this.#place.read(name, from, length, reading) }
    })
    for await (const { group, from, reading, bytes } of groups) {
      for (const entry of group) {
        const at = entry.offset - from
        if (this.#isProven(pack, entry, bytes.subarray(at, at + entry.length))) onProven(entry)
        else isWhole = false
      }
      if (bytes.buffer !== reading?.buffer) letGo(bytes)
    }
    return isWhole
  }

  #isProven(pack: OpenPack, entry: PackEntry, sealed: Buffer): boolean {
    const stored = unseal(pack, entry, sealed)
    if (!stored) return false
    try {
      const content = contentOf(stored, entry.flags, entry.plainBytes, room)
      // The id of a delta is that of what it comes to.
      if (entry.flags & deltaFlag) return true
      return this.#keyring.isIdOf(entry.id, kindOf(entry.flags) as ChunkKind, content)
    } catch {
      // It is not the stored form of anything.
      return false
    } finally {
      letGo(stored)
    }
  }
}

interface Group {
  readonly group: readonly PackEntry[]
  readonly from: number
  readonly length: number
}

/** Entries that are read at once. */
function groupsOf(entries: readonly PackEntry[]): Group[] {
  const groups: Group[] = []
  for (let first = 0; first < entries.length;) {
    const to = (entries[first]?.offset ?? 0) + step
    let next = first + 1
    while (next < entries.length && (entries[next]?.offset ?? 0) < to) next += 1
    const group = entries.slice(first, next)
    const [from, last] = [group[0]?.offset ?? 0, group.at(-1)]
    groups.push({ group, from, length: last ? last.offset + last.length - from : 0 })
    first = next
  }
  return groups
}
