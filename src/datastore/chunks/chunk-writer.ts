/**
 * Stores chunks nobody has yet: compresses, seals and packs them, and tells the index from time to time.
 *
 * Packs and segments are of use to everybody as soon as they are there: a chunk is proven by its seal, whoever's backup
 * it was stored for, and whether or not that was ever finished. Whoever makes a writer disposes of it.
 */
import { join } from 'node:path'
import type { ChunkIndex } from '../index/chunk-index.ts'
import { type ChunkKind, kindOf, kinds, packTargetBytes } from '../format.ts'
import { NewChunks } from '../packs/new-chunks.ts'
import { packName, PackWriter } from '../packs/pack.ts'
import { type SegmentEntry, type SegmentNeeds, writeSegment } from '../index/segment.ts'
import { storedFormOf } from '../packs/stored-form.ts'

/** New chunks that are kept in memory, 36 bytes each at most twice over; then a segment is written. */
const heldChunks = 2 ** 19

export interface ChunkWriterNeeds extends SegmentNeeds {
  readonly index: ChunkIndex
  /** Of zstd. */
  readonly level: number
}

interface StoredChunk {
  readonly id: Buffer
  readonly stored: Uint8Array
  readonly plainBytes: number
  readonly flags: number
}

interface OpenPackFile {
  readonly number: number
  readonly writer: PackWriter
}

export class ChunkWriter implements AsyncDisposable {
  readonly #needs: ChunkWriterNeeds
  readonly #new = new NewChunks()
  /** Names of packs by number; a pack that is open has none yet. */
  #names: (string | undefined)[] = []
  readonly #open = new Map<boolean, OpenPackFile>()
  #storedBytes = 0

  constructor(needs: ChunkWriterNeeds) {
    this.#needs = needs
  }

  /** Added to packs so far. */
  get storedBytes(): number {
    return this.#storedBytes
  }

  /** @param id of the content. @returns bytes stored: 0 for what was there */
  async put(id: Buffer, kind: ChunkKind, content: Uint8Array): Promise<number> {
    if (await this.has(id)) return 0
    const pack = this.#open.get(kind !== kinds.content) ?? (await this.#openPack(kind !== kinds.content))
    // Nothing is waited for from here to the seal: what was compressed is valid until the next call.
    const { bytes, coding } = storedFormOf(content, this.#needs.level)
    return this.#append(pack, { id, stored: bytes, plainBytes: content.length, flags: coding | (kind << 4) })
  }

  async has(id: Buffer): Promise<boolean> {
    return this.#new.has(id) || (await this.#needs.index.has(id))
  }

  /** As `has`, without a look at any file: see `ChunkIndex.mayHave`. */
  mayHave(id: Buffer): boolean {
    return this.#new.has(id) || this.#needs.index.mayHave(id)
  }

  /** Stores without asking whether it is there. @param stored the content's stored form */
  async store(id: Buffer, stored: Uint8Array, plainBytes: number, flags: number): Promise<number> {
    const isMetadata = kindOf(flags) !== kinds.content
    const pack = this.#open.get(isMetadata) ?? (await this.#openPack(isMetadata))
    return this.#append(pack, { id, stored, plainBytes, flags })
  }

  async #append({ number, writer }: OpenPackFile, chunk: StoredChunk): Promise<number> {
    const { id, stored, plainBytes, flags } = chunk
    const entry = await writer.append(id, stored, plainBytes, flags)
    this.#new.add(id, number, entry)
    this.#storedBytes += entry.length
    if (writer.sizeBytes >= packTargetBytes) await this.#close(kindOf(flags) !== kinds.content)
    if (this.#new.count >= heldChunks) await this.flush()
    return entry.length
  }

  /** Afterwards everybody finds what was stored, and it survives power loss. */
  async flush(): Promise<void> {
    for (const isMetadata of this.#open.keys()) await this.#close(isMetadata)
    const { index } = this.#needs
    const packs = [...new Set(this.#names)].filter((name) => name !== undefined)
    const name = await writeSegment(this.#needs, this.#new.count, [this.#entries()], packs)
    if (name !== undefined) await index.add(`segments/${name}`)
    this.#new.clear()
    this.#names = []
  }

  *#entries(): Generator<SegmentEntry> {
    for (const entry of this.#new.entries()) yield { ...entry, pack: this.#names[entry.pack] ?? '' }
  }

  /** What is not in place yet goes; the rest is garbage for the collector. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const { writer } of this.#open.values()) await writer[Symbol.asyncDispose]()
    this.#open.clear()
  }

  async #openPack(isMetadata: boolean): Promise<OpenPackFile> {
    const { place, random, keyring } = this.#needs
    const path = join(place.stagingDir, `pack-${random.uuid()}`)
    const writer = await PackWriter.create(path, { keyring, random, isMetadata })
    const opened = { number: this.#names.push(undefined) - 1, writer }
    this.#open.set(isMetadata, opened)
    return opened
  }

  async #close(isMetadata: boolean): Promise<void> {
    const open = this.#open.get(isMetadata)
    if (!open) return
    const name = await open.writer.finish()
    await this.#needs.place.putFile(packName(name), open.writer.path)
    this.#names[open.number] = name
    // Only now: what cannot be put is thrown away with the writer.
    this.#open.delete(isMetadata)
  }
}
