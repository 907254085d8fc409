/**
 * A segment of the index: ids in order, each with the place of its chunk, and a filter that says of most ids that they
 * are not in it without reading anything.
 *
 * Entries are found where they must be: ids are evenly spread, so the place of one follows from its value, give or take,
 * and better still from that of one nearby.
 * Nothing but the filter and the names of packs is kept in memory.
 */
import { join } from 'node:path'
import { AppendFile } from '../packs/append-file.ts'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import {
  idBytes,
  metadataMaximumBytes,
  packMaximumBytes,
  segmentEntriesMaximum,
  segmentPacksMaximum,
  shortIdBytes,
} from '../format.ts'
import type { Keyring } from '../keys/keyring.ts'
import type { Lease } from '../places/lease.ts'
import type { Place } from '../places/place.ts'

const magic = Buffer.from('HAKOSEG2', 'latin1')
const headerBytes = 24
export const segmentEntryBytes = 32
const macBytes = 32
const probes = 7
const bitsPerEntry = 10
/** Entries read at once around where one must be. */
const windowEntries = 256
/** Nearly always two are enough. */
const closeGuesses = 4
/** Entries read at once by who goes through all of them. */
const entriesAtOnce = 2_048
/** Entries written at once. */
const blockEntries = 2_048
const plainBits = 21

/** Where a chunk lies. */
export interface Location {
  readonly pack: string
  readonly offset: number
  /** Of the sealed chunk. */
  readonly length: number
  readonly plainBytes: number
  readonly flags: number
}

export interface SegmentEntry extends Location {
  /** 16 bytes. */
  readonly id: Buffer
}

export function segmentName(id: string): string {
  return `segments/${id}`
}

export interface SegmentNeeds {
  readonly place: Place
  readonly keyring: Keyring
  readonly random: Random
  /** Under which the packs are there that it names: others will rely on them. */
  readonly lease?: Pick<Lease, 'requireHeld'> | undefined
}

/** A segment in the making. */
export class SegmentWriter implements AsyncDisposable {
  readonly #needs: SegmentNeeds
  readonly #file: AppendFile
  readonly #mac: ReturnType<Keyring['macOfSegment']>
  /** Of the packs. */
  readonly #numbers: ReadonlyMap<string, number>
  readonly #count: number
  readonly #filter: Buffer
  readonly #block = Buffer.allocUnsafe(blockEntries * segmentEntryBytes)
  #filled = 0
  #written = 0

  private constructor(needs: SegmentNeeds, file: AppendFile, count: number, packs: readonly string[]) {
    this.#needs = needs
    this.#file = file
    this.#mac = needs.keyring.macOfSegment()
    this.#numbers = new Map(packs.map((pack, number) => [pack, number]))
    this.#count = count
    this.#filter = Buffer.alloc(filterBytes(count))
  }

  /**
   * @param count of entries to come
   * @throws Fault `too-large` when no segment has as many
   */
  static async create(needs: SegmentNeeds, count: number, packs: readonly string[]): Promise<SegmentWriter> {
    requireAtMost(segmentEntriesMaximum, count, 'entries')
    requireAtMost(segmentPacksMaximum, packs.length, 'packs')
    const { place, random } = needs
    await using undo = new AsyncDisposableStack()
    const file = undo.use(await AppendFile.create(join(place.stagingDir, `segment-${random.uuid()}`)))
    const writer = new SegmentWriter(needs, file, count, packs)
    await writer.#begin(packs)
    undo.move()
    return writer
  }

  async #begin(packs: readonly string[]): Promise<void> {
    const header = Buffer.alloc(headerBytes)
    magic.copy(header)
    header.writeUInt32LE(packs.length, 8)
    header.writeUInt32LE(this.#count, 12)
    header.writeUInt32LE(this.#filter.length, 16)
    await this.#append(header)
    await this.#append(Buffer.from(packs.join(''), 'hex'))
  }

  /** @param entries behind those that were added before, in order of their ids, each once */
  async add(entries: Iterable<SegmentEntry>): Promise<void> {
    for (const entry of entries) {
      writeEntry(this.#block, this.#filled * segmentEntryBytes, entry, this.#numbers.get(entry.pack))
      addTo(this.#filter, entry.id)
      this.#filled += 1
      if (this.#filled === blockEntries) await this.#appendBlock()
    }
  }

  /** Puts it into place. @returns its name */
  async put(isAnew = false): Promise<string> {
    await this.#appendBlock()
    if (this.#written !== this.#count) throw new Error(`${this.#written} entries came, ${this.#count} were announced`)
    await this.#append(this.#filter)
    await this.#file.append(this.#mac.digest())
    const id = await this.#file.finish()
    const { place, lease } = this.#needs
    await lease?.requireHeld()
    if (isAnew) await place.replaceFile(segmentName(id), this.#file.path)
    else await place.putFile(segmentName(id), this.#file.path)
    return id
  }

  async #appendBlock(): Promise<void> {
    await this.#append(this.#block.subarray(0, this.#filled * segmentEntryBytes))
    this.#written += this.#filled
    this.#filled = 0
  }

  async #append(bytes: Buffer): Promise<void> {
    this.#mac.update(bytes)
    await this.#file.append(bytes)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#file[Symbol.asyncDispose]()
  }
}

/** Not `exhausted`: no room that is given free would help. */
function requireAtMost(maximum: number, count: number, what: string): void {
  if (count <= maximum) return
  throw new Fault(
    'too-large',
    `a part of the index with ${count} ${what} would be too large: ${maximum} are possible`,
    {
      remedy: 'Rebuild the index from the packs: hako datastore repair.',
    },
  )
}

/**
 * Writes a segment and puts it into place.
 * @param entries in order of their ids, each once; some at a time
 * @param isAnew one of the same name may be there, and be damaged
 * @returns its name; nothing when there are no entries
 */
export async function writeSegment(
  needs: SegmentNeeds,
  count: number,
  entries: AsyncIterable<Iterable<SegmentEntry>> | Iterable<Iterable<SegmentEntry>>,
  packs: readonly string[],
  isAnew = false,
): Promise<string | undefined> {
  if (count === 0) return undefined
  await using writer = await SegmentWriter.create(needs, count, packs)
  for await (const some of entries) await writer.add(some)
  return await writer.put(isAnew)
}

function writeEntry(block: Buffer, at: number, entry: SegmentEntry, pack: number | undefined): void {
  if (pack === undefined) throw new Error(`pack ${entry.pack} is not in the list of the segment`)
  entry.id.copy(block, at, 0, shortIdBytes)
  block.writeUInt32LE(pack, at + 16)
  block.writeUInt32LE(entry.offset, at + 20)
  block.writeUInt32LE(entry.length, at + 24)
  block.writeUInt32LE((entry.plainBytes | (entry.flags << plainBits)) >>> 0, at + 28)
}

/** @param length power of two */
function filterBytes(count: number): number {
  const wanted = Math.max(8, Math.ceil((count * bitsPerEntry) / 8))
  return 2 ** Math.ceil(Math.log2(wanted))
}

function addTo(filter: Buffer, id: Buffer): void {
  const mask = filter.length * 8 - 1
  const [a, b] = [id.readUInt32LE(0), id.readUInt32LE(4) | 1]
  for (let probe = 0; probe < probes; probe += 1) {
    const bit = (a + Math.imul(probe, b)) & mask
    filter[bit >>> 3] = (filter[bit >>> 3] ?? 0) | (1 << (bit & 7))
  }
}

function mayHold(filter: Buffer, id: Buffer): boolean {
  const mask = filter.length * 8 - 1
  const [a, b] = [id.readUInt32LE(0), id.readUInt32LE(4) | 1]
  for (let probe = 0; probe < probes; probe += 1) {
    const bit = (a + Math.imul(probe, b)) & mask
    if (((filter[bit >>> 3] ?? 0) & (1 << (bit & 7))) === 0) return false
  }
  return true
}

export class Segment {
  readonly name: string
  readonly count: number
  readonly packs: readonly string[]
  readonly #place: Place
  readonly #entriesAt: number
  readonly #filter: Buffer

  private constructor(facts: { name: string; count: number; packs: readonly string[]; place: Place; filter: Buffer }) {
    this.name = facts.name
    this.count = facts.count
    this.packs = facts.packs
    this.#place = facts.place
    this.#filter = facts.filter
    this.#entriesAt = headerBytes + facts.packs.length * idBytes
  }

  /** Reads what is kept in memory. Entries are proven when a chunk is: a wrong one leads to no chunk of that id. @throws Fault `missing`, `damaged` */
  static async open(place: Place, name: string): Promise<Segment> {
    const size = await place.sizeOf(name)
    if (size < headerBytes + macBytes) throw damagedSegment(name, `it is ${size} bytes long`)
    const header = await place.read(name, 0, headerBytes)
    if (!header.subarray(0, 8).equals(magic)) throw damagedSegment(name, 'it has no beginning')
    const [packs, count, filter] = [header.readUInt32LE(8), header.readUInt32LE(12), header.readUInt32LE(16)]
    const filterAt = headerBytes + packs * idBytes + count * segmentEntryBytes
    const isPossible = packs <= segmentPacksMaximum && count <= segmentEntriesMaximum && filter === filterBytes(count)
    if (!isPossible || filterAt + filter + macBytes !== size)
      throw damagedSegment(name, 'its sizes contradict each other')
    const names = await place.read(name, headerBytes, packs * idBytes)
    return new Segment({
      name,
      count,
      packs: Array.from({ length: packs }, (_, at) => names.toString('hex', at * idBytes, (at + 1) * idBytes)),
      place,
      filter: await place.read(name, filterAt, filter),
    })
  }

  /** Whether a look for it is worth while. */
  mayHold(id: Buffer): boolean {
    return mayHold(this.#filter, id)
  }

  /** @param id at least 16 bytes */
  async find(id: Buffer): Promise<Location | undefined> {
    if (!this.mayHold(id)) return undefined
    let [low, high] = [0, this.count]
    const top = id.readUInt32BE(0)
    /** Entries from an id to the one looked for, as they are spread. */
    const distance = (from: number) => Math.round(((top - from) / 2 ** 32) * this.count)
    let middle = distance(0)
    for (let guesses = 1; low < high; guesses += 1) {
      const from = Math.max(low, Math.min(middle - windowEntries / 2, high - windowEntries))
      const window = await this.#window(from, Math.min(high, from + windowEntries))
      const [count, last] = [window.length / segmentEntryBytes, window.length - segmentEntryBytes]
      // What is near an id is told far more closely by that one than by the first guess of all.
      if (window.compare(id, 0, shortIdBytes, 0, shortIdBytes) > 0) {
        high = from
        middle = high + distance(window.readUInt32BE(0))
      } else if (window.compare(id, 0, shortIdBytes, last, last + shortIdBytes) < 0) {
        low = from + count
        middle = low + distance(window.readUInt32BE(last))
      } else return this.#findIn(window, id)
      // Spread in some other way: each further one halves what is left.
      if (guesses >= closeGuesses) middle = Math.floor((low + high) / 2)
    }
    return undefined
  }

  #findIn(window: Buffer, id: Buffer): Location | undefined {
    let [low, high] = [0, window.length / segmentEntryBytes - 1]
    while (low <= high) {
      const middle = (low + high) >> 1
      const at = middle * segmentEntryBytes
      const order = window.compare(id, 0, shortIdBytes, at, at + shortIdBytes)
      if (order === 0) return this.entryAt(window, at)
      if (order < 0) low = middle + 1
      else high = middle - 1
    }
    return undefined
  }

  /** All entries as they lie there, some at a time; `entryAt` says what one is. */
  async *windows(): AsyncGenerator<Buffer, undefined> {
    for (let from = 0; from < this.count; from += entriesAtOnce) {
      yield await this.#window(from, Math.min(this.count, from + entriesAtOnce))
    }
    return undefined
  }

  #window(from: number, to: number): Promise<Buffer> {
    return this.#place.read(this.name, this.#entriesAt + from * segmentEntryBytes, (to - from) * segmentEntryBytes)
  }

  /** @throws Fault `damaged` when it cannot be one */
  entryAt(window: Buffer, at: number): SegmentEntry {
    const packed = window.readUInt32LE(at + 28)
    const entry = {
      id: window.subarray(at, at + shortIdBytes),
      pack: this.packs[window.readUInt32LE(at + 16)] ?? '',
      offset: window.readUInt32LE(at + 20),
      length: window.readUInt32LE(at + 24),
      plainBytes: packed & (2 ** plainBits - 1),
      flags: packed >>> plainBits,
    }
    const end = entry.offset + entry.length
    if (entry.pack === '' || end > packMaximumBytes || entry.plainBytes > metadataMaximumBytes) {
      throw damagedSegment(this.name, 'an entry of it cannot be')
    }
    return entry
  }

  /** Reads all of it. @throws Fault `damaged` when a byte is not what was written */
  async check(keyring: Keyring): Promise<void> {
    const size = await this.#place.sizeOf(this.name)
    const mac = keyring.macOfSegment()
    const step = 1024 * 1024
    for (let at = 0; at < size - macBytes; at += step) {
      mac.update(await this.#place.read(this.name, at, Math.min(step, size - macBytes - at)))
    }
    const written = await this.#place.read(this.name, size - macBytes, macBytes)
    if (!mac.digest().equals(written)) throw damagedSegment(this.name, 'it is not what was written')
  }
}

export function damagedSegment(name: string, how: string): Fault {
  return new Fault('damaged', `${name} is damaged: ${how}`, {
    remedy: 'Rebuild the index from the packs: hako datastore repair.',
  })
}
