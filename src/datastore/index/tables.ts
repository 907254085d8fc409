/** What packs say themselves of where chunks lie, for where the index does not say it any more. */
import { isFault } from '#base/fault.ts'
import { ForeignFault } from '../foreign.ts'
import type { Keyring } from '../keys/keyring.ts'
import { NewChunks } from '../packs/new-chunks.ts'
import { openPack, packName } from '../packs/pack.ts'
import type { Place } from '../places/place.ts'
import type { Location, Segment } from './segment.ts'

/** Of packs that are read one behind another: what lies in several is found in the first. */
export class PackTables {
  readonly chunks = new NewChunks()
  readonly packs: string[] = []
  /** Such as cannot be read. */
  readonly damaged: string[] = []
  /** There is more than was looked at. */
  isCut = false
  readonly #place: Place
  readonly #keyring: Keyring

  constructor(place: Place, keyring: Keyring) {
    this.#place = place
    this.#keyring = keyring
  }

  /** What is gone meanwhile, or damaged, adds nothing. */
  async add(pack: string): Promise<void> {
    try {
      const { entries } = await openPack(this.#place, this.#keyring, pack)
      const number = this.packs.push(pack) - 1
      for (const entry of entries) this.chunks.add(entry.id, number, entry)
    } catch (fault) {
      if (isFault(fault, 'missing')) return
      // What is away, or refused to us, is not damaged.
      if (!(fault instanceof ForeignFault) && !isFault(fault, 'damaged')) throw fault
      this.damaged.push(pack)
    }
  }

  /** @param id 16 bytes or more */
  find(id: Buffer): Location | undefined {
    const found = this.chunks.get(id)
    return found && { ...found, pack: this.packs[found.pack] ?? '' }
  }
}

/** Packs no part of the index names: garbage of somebody who died, what is being written, or what a lost part named. */
export async function unnamedPacks(place: Place, segments: readonly Segment[]): Promise<string[]> {
  const named = new Set(segments.flatMap(({ packs }) => packs))
  const found: string[] = []
  for await (const { name } of place.list('packs/')) {
    const pack = name.slice(-64)
    // Anything else is no pack of ours.
    if (name === packName(pack) && !named.has(pack)) found.push(pack)
  }
  return found
}

/** As many as a reader keeps in memory, some 36 bytes each at most twice over. */
const heldChunks = 2 ** 21

/** Those of packs no part of the index names, as far as there is memory for them. */
export async function unnamedTables(place: Place, keyring: Keyring, segments: readonly Segment[]): Promise<PackTables> {
  const tables = new PackTables(place, keyring)
  for (const pack of await unnamedPacks(place, segments)) {
    if (tables.chunks.count >= heldChunks) {
      tables.isCut = true
      break
    }
    await tables.add(pack)
  }
  return tables
}
