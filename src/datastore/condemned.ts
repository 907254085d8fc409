/**
 * Lists of chunks nobody needed at some moment, and where they lie. A writer that finds one of them takes it for absent;
 * the collector removes that copy of it, and no other, when it is still not needed later.
 *
 * A list counts from the moment a marker beside it says: one that is taken when the list can be seen by everybody.
 */
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { idBytes, shortIdBytes } from './format.ts'
import type { Place } from './place.ts'

const folder = 'condemned/'
const magic = Buffer.from('HAKOCON2', 'latin1')
const maximumBytes = 1024 * 1024 * 1024
const headerBytes = magic.length + 8
const entryBytes = shortIdBytes + 4
const beginningsMaximumBytes = 64 * 1024 * 1024

/** One copy of a chunk. */
export interface Copy {
  /** 16 bytes. */
  readonly id: Buffer
  readonly pack: string
}

export class CondemnedList {
  readonly name: string
  readonly #packs: readonly string[]
  readonly #entries: Buffer
  /** A bit for what ids begin with: nearly all that is asked for is not here. */
  #beginnings: Uint8Array | undefined

  constructor(name: string, packs: readonly string[], entries: Buffer) {
    this.name = name
    this.#packs = packs
    this.#entries = entries
  }

  get count(): number {
    return this.#entries.length / entryBytes
  }

  has(id: Buffer): boolean {
    this.#beginnings ??= this.#noted()
    const bit = id.readUInt32LE(0) % (this.#beginnings.length * 8)
    return ((this.#beginnings[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0 && this.#firstOf(id) !== undefined
  }

  #noted(): Uint8Array {
    const bits = new Uint8Array(Math.min(beginningsMaximumBytes, Math.max(8, this.count * 2)))
    for (let at = 0; at < this.#entries.length; at += entryBytes) {
      const bit = this.#entries.readUInt32LE(at) % (bits.length * 8)
      bits[bit >> 3] = (bits[bit >> 3] ?? 0) | (1 << (bit & 7))
    }
    return bits
  }

  hasCopy(id: Buffer, pack: string): boolean {
    for (let at = this.#firstOf(id); at !== undefined && this.#isAt(id, at); at += 1) {
      if (this.#packs[this.#entries.readUInt32LE(at * entryBytes + shortIdBytes)] === pack) return true
    }
    return false
  }

  #isAt(id: Buffer, at: number): boolean {
    return at < this.count && this.#compare(id, at) === 0
  }

  #compare(id: Buffer, at: number): number {
    return this.#entries.compare(id, 0, shortIdBytes, at * entryBytes, at * entryBytes + shortIdBytes)
  }

  #firstOf(id: Buffer): number | undefined {
    const top = id.readUInt32BE(0)
    let [low, high] = [0, this.count]
    while (low < high) {
      const middle = (low + high) >> 1
      // Nearly always decided by this, without a call out of JavaScript.
      const order = this.#entries.readUInt32BE(middle * entryBytes) - top
      if (order < 0 || (order === 0 && this.#compare(id, middle) < 0)) low = middle + 1
      else high = middle
    }
    return this.#isAt(id, low) ? low : undefined
  }
}

/** Of one list: it is put together in memory. */
const copiesPerList = 2 ** 20

/**
 * Puts copies into lists where everybody sees them.
 * @param copies in order of their ids, some at a time
 * @returns how many
 */
export async function condemn(
  place: Place,
  random: Random,
  copies: AsyncIterable<Iterable<Copy>> | Iterable<Iterable<Copy>>,
): Promise<number> {
  let [list, count] = [new NewList(), 0]
  const put = async () => {
    if (list.count > 0) await place.put(`${folder}${random.uuid()}`, list.content())
    count += list.count
    list = new NewList()
  }
  for await (const some of copies) {
    for (const copy of some) list.add(copy)
    if (list.count >= copiesPerList) await put()
  }
  await put()
  return count
}

/** In the making. */
class NewList {
  readonly #packs = new Map<string, number>()
  #entries = Buffer.allocUnsafe(entryBytes * 2_048)
  count = 0

  add({ id, pack }: Copy): void {
    const number = this.#packs.get(pack) ?? this.#packs.size
    this.#packs.set(pack, number)
    const at = this.count * entryBytes
    if (at === this.#entries.length) this.#entries = Buffer.concat([this.#entries], at * 2)
    id.copy(this.#entries, at, 0, shortIdBytes)
    this.#entries.writeUInt32LE(number, at + shortIdBytes)
    this.count += 1
  }

  content(): Buffer {
    const header = Buffer.alloc(headerBytes)
    magic.copy(header)
    header.writeUInt32LE(this.#packs.size, magic.length)
    const names = Buffer.from([...this.#packs.keys()].join(''), 'hex')
    return Buffer.concat([header, names, this.#entries.subarray(0, this.count * entryBytes)])
  }
}

/** All there are. @param known those that were read before: a list never changes. @throws Fault `damaged` */
export async function condemnedLists(place: Place, known: readonly CondemnedList[] = []): Promise<CondemnedList[]> {
  const lists: CondemnedList[] = []
  for await (const { name } of place.list(folder)) {
    if (isMarker(name)) continue
    const list = known.find((one) => one.name === name) ?? (await read(place, name))
    if (list) lists.push(list)
  }
  return lists
}

/** Nothing when it is gone meanwhile. */
async function read(place: Place, name: string): Promise<CondemnedList | undefined> {
  const content = await place.get(name, maximumBytes)
  return content && parse(content, name)
}

function parse(content: Buffer, name: string): CondemnedList {
  const damaged = () => new Fault('damaged', `${name} is damaged: it is no list of chunks`)
  if (content.length < headerBytes || !content.subarray(0, magic.length).equals(magic)) throw damaged()
  const packs = content.readUInt32LE(magic.length)
  const from = headerBytes + packs * idBytes
  if (from > content.length || (content.length - from) % entryBytes !== 0) throw damaged()
  const names = Array.from({ length: packs }, (_, at) => {
    return content.toString('hex', headerBytes + at * idBytes, headerBytes + (at + 1) * idBytes)
  })
  return new CondemnedList(name, names, content.subarray(from))
}

function isMarker(name: string): boolean {
  return name.includes('.at-')
}

/** A list whose moment is known. */
export interface TimedList {
  readonly list: CondemnedList
  readonly marker: string
  /** Seconds since 1970. */
  readonly time: number
}

/** Gives every list its moment: that of its marker, or now. */
export async function timed(
  place: Place,
  lists: readonly CondemnedList[],
  nowSeconds: () => number,
): Promise<TimedList[]> {
  const markers: string[] = []
  for await (const { name } of place.list(folder)) if (isMarker(name)) markers.push(name)
  const found: TimedList[] = []
  for (const list of lists) {
    const known = markers.find((name) => name.startsWith(`${list.name}.at-`))
    const time = known === undefined ? nowSeconds() : Number(known.slice(`${list.name}.at-`.length))
    const marker = known ?? `${list.name}.at-${time}`
    if (known === undefined) await place.put(marker, Buffer.alloc(0))
    found.push({ list, marker, time })
  }
  return found
}

export async function removeList(place: Place, { list, marker }: TimedList): Promise<void> {
  await place.remove(list.name)
  await place.remove(marker)
}
