/**
 * Which chunks are what they were: every pack is read once from its beginning to its end, compared with its name, and each
 * chunk in it with its seal and its id. What backups need is then looked up instead of read again for each of them.
 */
import { createHash } from 'node:crypto'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { letGo } from '#base/let-go.ts'
import { suspectsFolder } from './chunk-index.ts'
import { ChunkOrdinals } from './chunk-ordinals.ts'
import type { OpenDatastore } from './datastore.ts'
import { type ChunkKind, deltaFlag, kindOf, metadataMaximumBytes } from './format.ts'
import { goOn } from './go-on.ts'
import type { Keyring } from './keyring.ts'
import { type OpenPack, openPack, type PackEntry, packName, unseal } from './pack.ts'
import type { Place } from './place.ts'
import { contentOf } from './stored-form.ts'
import type { VerifyOptions } from './verify.ts'

/** Read at once, give or take a chunk. */
const step = 1 * MiB

const states = { unproven: 0, proven: 1, full: 2 } as const

export class ProvenChunks {
  readonly #ordinals: ChunkOrdinals
  readonly #states: Uint8Array
  /** Packs in which damage was seen. */
  readonly damaged: readonly string[]

  private constructor(ordinals: ChunkOrdinals, chunkStates: Uint8Array, damaged: readonly string[]) {
    this.#ordinals = ordinals
    this.#states = chunkStates
    this.damaged = damaged
  }

  /** Reads all there is, and marks the packs in which damage is seen. */
  static async of(open: OpenDatastore, { signal, onProgress }: VerifyOptions = {}): Promise<ProvenChunks> {
    const { place, facts } = open.datastore
    const packs: { name: string; sizeBytes: number }[] = []
    for await (const pack of place.list('packs/')) packs.push(pack)
    await open.index.reload()
    const ordinals = await ChunkOrdinals.of(open.index.segments)
    const chunkStates = new Uint8Array(ordinals.count)
    const note = ({ id, plainBytes }: PackEntry) => {
      const ordinal = ordinals.of(id)
      const state = plainBytes === facts.chunkBytes ? states.full : states.proven
      if (ordinal !== undefined) chunkStates[ordinal] = state
    }
    const damaged: string[] = []
    const all = packs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    let done = 0
    for (const { name, sizeBytes } of packs) {
      goOn(signal)
      const id = name.slice(-64)
      const isWhole = await new PackProof(place, open.keyring, id).run(sizeBytes, note)
      if (isWhole === true) await place.remove(`${suspectsFolder}${id}`)
      else if (isWhole === false) {
        damaged.push(id)
        await place.put(`${suspectsFolder}${id}`, Buffer.alloc(0))
      }
      done += sizeBytes
      onProgress?.(done, all)
    }
    return new ProvenChunks(ordinals, chunkStates, damaged)
  }

  /** @param isFull its content must be as long as chunks of disks are */
  has(id: Buffer, isFull: boolean): boolean {
    const ordinal = this.#ordinals.of(id)
    const state = ordinal === undefined ? states.unproven : this.#states[ordinal]
    return state === states.full || (state === states.proven && !isFull)
  }
}

/** Where content is unpacked to be looked at. */
const room = Buffer.allocUnsafeSlow(metadataMaximumBytes)

class PackProof {
  readonly #place: Place
  readonly #keyring: Keyring
  readonly #id: string
  readonly #hash = createHash('sha256')

  constructor(place: Place, keyring: Keyring, id: string) {
    this.#place = place
    this.#keyring = keyring
    this.#id = id
  }

  /** @returns whether the pack is whole; nothing when it is gone */
  async run(sizeBytes: number, onProven: (entry: PackEntry) => void): Promise<boolean | undefined> {
    try {
      const pack = await openPack(this.#place, this.#keyring, this.#id)
      const areWhole = await this.#readChunks(pack, onProven, sizeBytes)
      return areWhole && this.#hash.digest('hex') === this.#id
    } catch (fault) {
      if (isFault(fault, 'missing')) return undefined
      if (isFault(fault, 'damaged')) return false
      throw fault
    }
  }

  async #readChunks(pack: OpenPack, onProven: (entry: PackEntry) => void, sizeBytes: number): Promise<boolean> {
    let [isWhole, at] = [true, 0]
    for (let first = 0; first < pack.entries.length;) {
      const next = nextGroup(pack.entries, first, at + step)
      const group = pack.entries.slice(first, next)
      const last = pack.entries[next - 1]
      const end = last ? last.offset + last.length : at
      const bytes = await this.#read(at, end)
      for (const entry of group) {
        const from = entry.offset - at
        if (this.#isProven(pack, entry, bytes.subarray(from, from + entry.length))) onProven(entry)
        else isWhole = false
      }
      letGo(bytes)
      first = next
      at = end
    }
    letGo(await this.#read(at, sizeBytes))
    return isWhole
  }

  async #read(from: number, to: number): Promise<Buffer> {
    const bytes = await this.#place.read(packName(this.#id), from, to - from)
    this.#hash.update(bytes)
    return bytes
  }

  #isProven(pack: OpenPack, entry: PackEntry, sealed: Buffer): boolean {
    const stored = unseal(pack, entry, sealed)
    if (!stored) return false
    try {
      const content = contentOf(stored, entry.flags, entry.plainBytes, room)
      // The id of a delta is that of what it comes to.
      if (entry.flags & deltaFlag) return true
      return this.#keyring.idOf(kindOf(entry.flags) as ChunkKind, content).equals(entry.id)
    } catch {
      // It is not the stored form of anything.
      return false
    } finally {
      letGo(stored)
    }
  }
}

/** @returns the number of the first entry that begins after `to`, or of the next when a chunk is longer */
function nextGroup(entries: readonly PackEntry[], first: number, to: number): number {
  let next = first + 1
  while (next < entries.length && (entries[next]?.offset ?? 0) < to) next += 1
  return next
}
