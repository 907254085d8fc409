/**
 * Lists of chunks nobody needed at some moment, and where they lie. A writer that finds one of them takes it for absent;
 * the collector removes that copy of it, and no other, when it is still not needed later.
 *
 * A list counts from the moment a marker beside it says: one that is taken when the list can be seen by everybody. The
 * marker also names who was at work then. Clocks can be set back: whether somebody began before the list is not left to them.
 */
import { isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { checkProperties } from '#base/schema/check.ts'
import { array, string } from '#base/schema/schema.ts'
import { idBytes, shortIdBytes } from '../format.ts'
import { compareIds } from './id-bytes.ts'
import type { Place } from '../places/place.ts'
import { seal, unseal } from '../sealed.ts'

const folder = 'condemned/'
const magic = Buffer.from('HAKOCON2', 'latin1')
const maximumBytes = 1024 * 1024 * 1024
const headerBytes = magic.length + 8
const entryBytes = shortIdBytes + 4
const markerProperties = { beside: array(string({ maxLength: 128 })) }
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
  /** Nobody can say any more what is in it: as far as writers are concerned, everything is. */
  readonly isLost: boolean
  /** A bit for what ids begin with: nearly all that is asked for is not here. */
  #beginnings: Uint8Array | undefined

  constructor(name: string, packs: readonly string[], entries: Buffer, isLost = false) {
    this.name = name
    this.#packs = packs
    this.#entries = entries
    this.isLost = isLost
  }

  get count(): number {
    return this.#entries.length / entryBytes
  }

  has(id: Buffer): boolean {
    if (this.isLost) return true
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

  /** Whether a chunk of the pack is in it. */
  names(pack: string): boolean {
    return this.#packs.includes(pack)
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
    return compareIds(this.#entries, at * entryBytes, id, 0)
  }

  #firstOf(id: Buffer): number | undefined {
    let [low, high] = [0, this.count]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#compare(id, middle) < 0) low = middle + 1
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

/** All there are, also such that cannot be read. @param known those that were read before: a list never changes */
export async function condemnedLists(place: Place, known: readonly CondemnedList[] = []): Promise<CondemnedList[]> {
  const lists: CondemnedList[] = []
  for await (const { name } of place.list(folder)) {
    if (isMarker(name)) continue
    const list = known.find((one) => one.name === name && !one.isLost) ?? (await read(place, name))
    if (list) lists.push(list)
  }
  return lists
}

/** Nothing when it is gone meanwhile. */
async function read(place: Place, name: string): Promise<CondemnedList | undefined> {
  const content = await readable(place, name)
  return content && parse(content, name)
}

/** Empty where the place cannot give it out. */
async function readable(place: Place, name: string): Promise<Buffer | undefined> {
  try {
    return await place.get(name, maximumBytes)
  } catch (fault) {
    if (!isFault(fault, 'damaged')) throw fault
    return Buffer.alloc(0)
  }
}

/** A bit that is not what it was makes an entry one of no chunk there is, or leaves no whole number of entries. */
function parse(content: Buffer, name: string): CondemnedList {
  const lost = () => new CondemnedList(name, [], Buffer.alloc(0), true)
  if (content.length < headerBytes || !content.subarray(0, magic.length).equals(magic)) return lost()
  const packs = content.readUInt32LE(magic.length)
  const from = headerBytes + packs * idBytes
  if (from > content.length || (content.length - from) % entryBytes !== 0) return lost()
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
  /** Leases of those who were at work then, and may not have seen it. */
  readonly beside: ReadonlySet<string>
}

export interface Timing {
  readonly nowSeconds: () => number
  /** Names of the leases that hold now. */
  readonly leases: () => Promise<readonly string[]>
}

/**
 * Gives every list its moment: that of its marker; or now, where it has none that can be. For the collector alone, who is told
 * of all lists there are: markers of others were left by one that died.
 */
export async function timed(place: Place, lists: readonly CondemnedList[], timing: Timing): Promise<TimedList[]> {
  const markers: string[] = []
  for await (const { name } of place.list(folder)) if (isMarker(name)) markers.push(name)
  const found: TimedList[] = []
  for (const list of lists) {
    const known = markers.find((name) => name.startsWith(`${list.name}.at-`))
    found.push((known && (await knownMoment(place, list, known, timing))) || (await momentNow(place, list, timing)))
  }
  for (const marker of markers) if (!found.some((one) => one.marker === marker)) await place.remove(marker)
  return found
}

/** Nothing where the marker is damaged, or of a clock that was wrong. */
async function knownMoment(
  place: Place,
  list: CondemnedList,
  marker: string,
  { nowSeconds }: Timing,
): Promise<TimedList | undefined> {
  const time = Number(marker.slice(`${list.name}.at-`.length))
  if (!(time <= nowSeconds())) return undefined
  const content = await readable(place, marker)
  try {
    const checked = checkProperties(
      markerProperties,
      Object(unseal(String(content), marker)) as Record<string, unknown>,
    )
    return checked.ok ? { list, marker, time, beside: new Set(checked.values.beside) } : undefined
  } catch (fault) {
    if (!isFault(fault, 'damaged')) throw fault
    return undefined
  }
}

async function momentNow(place: Place, list: CondemnedList, { nowSeconds, leases }: Timing): Promise<TimedList> {
  const time = nowSeconds()
  const marker = `${list.name}.at-${time}`
  const beside = await leases()
  await place.replace(marker, Buffer.from(seal({ beside: [...beside] })))
  return { list, marker, time, beside: new Set(beside) }
}

export async function removeList(place: Place, { list, marker }: TimedList): Promise<void> {
  await place.remove(list.name)
  await place.remove(marker)
}

/** One that cannot be read, and whatever says since when it is there. */
export async function removeLostList(place: Place, { name }: CondemnedList): Promise<void> {
  await place.remove(name)
  for await (const { name: other } of place.list(folder)) if (other.startsWith(`${name}.at-`)) await place.remove(other)
}
