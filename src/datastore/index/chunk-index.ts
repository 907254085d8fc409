/**
 * Where every chunk of a datastore lies: all its segments together.
 *
 * Segments come and go while others work (writers add, merges replace several by one), so whoever misses one, or a chunk,
 * looks again at what is there.
 */
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { type CondemnedList, condemnedLists } from './condemned.ts'
import type { Keyring } from '../keys/keyring.ts'
import type { Place } from '../places/place.ts'
import { type Location, Segment } from './segment.ts'
import { type PackTables, unnamedTables } from './tables.ts'

/** Empty objects with the names of packs in which damage was seen. */
export const suspectsFolder = 'suspects/'
const attempts = 8

export class ChunkIndex {
  readonly #place: Place
  readonly #log: Log
  #segments: Segment[] = []
  #condemned: readonly CondemnedList[] = []
  /** Packs in which damage was seen, and such that are gone. */
  #suspects: ReadonlySet<string> = new Set()
  readonly #gone = new Set<string>()
  /** What is wrong with segments that are not used. */
  readonly #damage = new Map<string, string>()
  /** What packs say themselves that no segment names, once somebody has looked. */
  #tables: Promise<PackTables> | undefined
  #isFoundBehind = false

  private constructor(place: Place, log: Log) {
    this.#place = place
    this.#log = log
  }

  static async open(place: Place, log: Log): Promise<ChunkIndex> {
    const index = new ChunkIndex(place, log)
    await index.reload()
    return index
  }

  get segments(): readonly Segment[] {
    return this.#segments
  }

  /**
   * Sees what others did since. A segment that cannot be read is left out, and said.
   * @returns whether other segments are there now
   */
  async reload(): Promise<boolean> {
    // Lists first: the collector drops entries before it removes the list that named them.
    this.#condemned = await condemnedLists(this.#place, this.#condemned)
    const known = new Map(this.#segments.map((segment) => [segment.name, segment]))
    const found: Segment[] = []
    const listed = new Set<string>()
    for await (const { name } of this.#place.list('segments/')) {
      listed.add(name)
      // Nothing is ever changed, so what was damaged is so still.
      const segment = known.get(name) ?? (this.#damage.has(name) ? undefined : await this.#opened(name))
      if (segment) found.push(segment)
    }
    for (const name of this.#damage.keys()) if (!listed.has(name)) this.#damage.delete(name)
    // Large ones first: most of what is asked for lies there.
    this.#segments = found.toSorted((a, b) => b.count - a.count)
    const suspects = new Set<string>()
    for await (const { name } of this.#place.list(suspectsFolder)) suspects.add(name.slice(suspectsFolder.length))
    this.#suspects = suspects
    return found.length !== known.size || found.some(({ name }) => !known.has(name))
  }

  /** As `reload`, with another look at what was damaged. */
  async renew(): Promise<void> {
    this.#damage.clear()
    this.#tables = undefined
    this.#isFoundBehind = false
    this.#segments = []
    await this.reload()
  }

  /** Of segments that are there and are not what was written. */
  get damage(): readonly string[] {
    return [...this.#damage.values()]
  }

  /** Their names. */
  get damaged(): readonly string[] {
    return [...this.#damage.keys()]
  }

  /** Reads all of it. What is not as it was written is left out from then on. */
  async prove(keyring: Keyring): Promise<void> {
    for (const segment of this.#segments) {
      try {
        await segment.check(keyring)
        // What is kept here may be whole and what it is of not.
        await this.#place.requireWhole?.(segment.name)
      } catch (fault) {
        // A merge took it away.
        if (isFault(fault, 'missing')) continue
        if (!(fault instanceof Fault) || !isFault(fault, 'damaged')) throw fault
        this.#leaveOut(segment.name, fault)
        this.#segments = this.#segments.filter((one) => one !== segment)
      }
    }
  }

  /** Whether a part of it was left out, or something was found that it should have named. */
  get isIncomplete(): boolean {
    return this.#isFoundBehind || this.#damage.size > 0
  }

  /**
   * For who reads, and is told wrong things by the index or nothing: the index is proven, and packs that no part of it names are
   * asked themselves. Once.
   * @returns where the chunk lies by that; nothing where nobody knows
   * @throws Fault `damaged` when there is too much to ask
   */
  async findBehind(id: Buffer, keyring: Keyring): Promise<Location | undefined> {
    if (!keyring.canRead) return undefined
    this.#tables ??= this.#lookBehind(keyring)
    const tables = await this.#tables
    const named = await this.find(id)
    if (named) return named
    const found = tables.find(id)
    this.#isFoundBehind ||= found !== undefined
    if (found || !tables.isCut) return found
    throw new Fault('damaged', `so much of the index of '${this.#place.label}' is lost that nobody looks through it`, {
      remedy: 'Rebuild the index from the packs: hako datastore repair.',
    })
  }

  async #lookBehind(keyring: Keyring): Promise<PackTables> {
    await this.prove(keyring)
    const tables = await unnamedTables(this.#place, keyring, this.#segments)
    const { length } = tables.packs
    const what = this.#damage.size === 0 ? 'a part of it is gone' : `${this.#damage.size} parts of it are damaged`
    const how = `${tables.chunks.count} chunks in ${length} packs are found by what the packs say`
    if (length > 0) this.#log.tell?.(`the index of '${this.#place.label}' is not whole: ${what}; ${how}`)
    return tables
  }

  get hasSuspects(): boolean {
    return this.#suspects.size > 0
  }

  /** Its chunks are better looked for elsewhere. */
  isBad(pack: string): boolean {
    return this.#suspects.has(pack) || this.#gone.has(pack)
  }

  /** Its chunks are looked for elsewhere from now on. */
  missPack(pack: string): void {
    this.#gone.add(pack)
  }

  #leaveOut(name: string, fault: Fault): void {
    this.#damage.set(name, fault.message)
    this.#log.warn('a damaged part of the index is not used', { segment: name, cause: fault })
  }

  async #opened(name: string): Promise<Segment | undefined> {
    try {
      return await Segment.open(this.#place, name)
    } catch (fault) {
      if (isFault(fault, 'missing')) return undefined
      // What is away is not damaged.
      if (!(fault instanceof Fault) || !isFault(fault, 'damaged')) throw fault
      this.#leaveOut(name, fault)
      return undefined
    }
  }

  /** As soon as it is there: what a writer stored can be found by itself. */
  async add(name: string): Promise<void> {
    const segment = await this.#opened(name)
    if (segment) this.#segments.push(segment)
  }

  /** Whether a writer may rely on the chunk: it is there and whole, and nobody is about to remove it. */
  async has(id: Buffer): Promise<boolean> {
    if (this.isCondemned(id)) return false
    return (await this.#find(id, (pack) => this.isBad(pack))) !== undefined
  }

  /** As `has`, by what is in memory alone: also true where damage was seen, and of one in a hundred that are not there, or more where there are several segments. */
  mayHave(id: Buffer): boolean {
    return !this.isCondemned(id) && this.#segments.some((segment) => segment.mayHold(id))
  }

  /** What writers take for absent. */
  get condemned(): readonly CondemnedList[] {
    return this.#condemned
  }

  get hasCondemned(): boolean {
    return this.#condemned.some(({ count, isLost }) => count > 0 || isLost)
  }

  isCondemned(id: Buffer): boolean {
    return this.#condemned.some((list) => list.has(id))
  }

  /** Rather where no damage was seen. */
  async find(id: Buffer): Promise<Location | undefined> {
    const isGone = (pack: string) => this.#gone.has(pack)
    const best = await this.#find(id, (pack) => this.isBad(pack))
    return best ?? (this.hasSuspects ? this.#find(id, isGone) : undefined)
  }

  async #find(id: Buffer, isBad: (pack: string) => boolean): Promise<Location | undefined> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        for (const segment of this.#segments) {
          const location = await segment.find(id)
          if (location && !isBad(location.pack)) return location
        }
        return undefined
      } catch (fault) {
        // A merge took it away.
        if (!isFault(fault, 'missing') || attempt === attempts) throw fault
        await this.reload()
      }
    }
  }
}
