/**
 * The trees of one backup in the making. A tree may be gone through beside the running guest first (`readAhead`); the
 * pass that counts (`add`) then reads only what has changed since, and takes over the rest, from that pass or from the
 * guest's last backup.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createHash } from 'node:crypto'
import { isFault } from '#base/fault.ts'
import { asDigest } from '#base/ids.ts'
import { printBackupId } from '#datastore/backup-id.ts'
import type { ChunkStore, WriterDeps } from '../chunk-store.ts'
import { digestOf } from '../digest.ts'
import { chunkBytes, pieceFormV1 } from '../format.ts'
import { type ManifestTree, treesOf } from '../manifest.ts'
import type { PackList } from '../known-chunks.ts'
import { BackupReader } from '../reader.ts'
import { Base, type BasePiece } from '#datastore/tree/base.ts'
import type { ContentStore } from '#datastore/tree/content.ts'
import { type AddTreeOptions, type PieceSink, type TreeCounts, TreePass } from '#datastore/tree/pass.ts'
import type { TreeNotes, TreeSource } from '#datastore/tree/source.ts'
import { CatalogueFile } from './catalogue-file.ts'
import type { PlacedChunk } from './stored-tree.ts'
import { TreeFileWriter } from './tree-file.ts'

export type TreeFacts = Omit<ManifestTree, 'treeSha256' | 'treeBytes'>

export interface AddedTree extends TreeFacts {
  /** Read from files. */
  readonly readBytes: number
  /** What whoever owns the tree should be told. */
  readonly notes: TreeNotes
}

interface OpenTree {
  readonly file: TreeFileWriter
  readonly facts: TreeFacts
}

interface FirstPass {
  readonly file: CatalogueFile
  readonly ids: string
  readonly settledMs: number
  /** It was stored for this backup, whichever pass came upon it. */
  readonly stored: Pick<TreeCounts, 'newChunks' | 'newStoredBytes'>
}

/** Earlier backups whose catalogue is looked at, should the newest ones be damaged. */
const basesTried = 3

export class TreesWriter {
  readonly #deps: WriterDeps
  readonly #chunks: () => Promise<ChunkStore>
  readonly #trees: OpenTree[] = []
  readonly #ahead = new Map<string, FirstPass>()

  constructor(deps: WriterDeps, chunks: () => Promise<ChunkStore>) {
    this.#deps = deps
    this.#chunks = chunks
  }

  get names(): string[] {
    return this.#trees.map(({ facts }) => facts.name)
  }

  /** A first pass, whose outcome is no part of the backup. The content it stores is. */
  async readAhead(name: string, source: TreeSource, options: AddTreeOptions): Promise<TreeCounts> {
    const settledMs = this.#settle(source)
    const path = this.#aheadPath(name)
    await this.#forget(name)
    const file = await CatalogueFile.create(path)
    try {
      const counts = await this.#pass(
        { name, source, settledMs, sink: (_, bytes, chunks) => file.add(bytes, chunks) },
        options,
      )
      this.#ahead.set(name, { file, ids: source.ids, settledMs, stored: counts })
      return counts
    } catch (cause) {
      await file[Symbol.asyncDispose]()
      await rm(path, { force: true })
      throw cause
    }
  }

  async add(name: string, source: TreeSource, options: AddTreeOptions): Promise<AddedTree> {
    // Under freeze nobody waits for the disk again: what changed since the first pass began is read by the next backup.
    const settledMs = this.#ahead.get(name)?.settledMs ?? this.#settle(source)
    const file = await TreeFileWriter.create(join(this.#deps.directory, 'backup', `${name}.tree`))
    try {
      const chunks = await this.#chunks()
      const hash = createHash('sha256')
      let [pieces, newStoredBytes] = [0, 0]
      const sink: PieceSink<PlacedChunk> = async (key, bytes, held) => {
        const digest = digestOf(bytes)
        const { location, storedBytes } = await chunks.put(bytes, digest)
        hash.update(digest)
        pieces += 1
        newStoredBytes += storedBytes
        await file.add(
          key,
          digest,
          location,
          held.map((chunk) => chunk.location),
        )
      }
      const { readBytes, ...counts } = await this.#pass({ name, source, settledMs, sink }, options)
      const before = this.#ahead.get(name)?.stored
      const facts: TreeFacts = {
        ...counts,
        name,
        digest: asDigest(hash.digest('hex')),
        pieces,
        newChunks: counts.newChunks + (before?.newChunks ?? 0),
        newStoredBytes: counts.newStoredBytes + newStoredBytes + (before?.newStoredBytes ?? 0),
        ids: source.ids,
      }
      await this.#forget(name)
      this.#trees.push({ file, facts })
      return { ...facts, readBytes, notes: source.notes() }
    } catch (cause) {
      await file.discard()
      throw cause
    }
  }

  /** To be called once every pack is closed. */
  async finish(packs: PackList): Promise<ManifestTree[]> {
    const trees: ManifestTree[] = []
    for (const { file, facts } of this.#trees) {
      const { sha256, sizeBytes } = await file.finish(packs)
      trees.push({ ...facts, treeSha256: sha256, treeBytes: sizeBytes })
    }
    for (const name of this.#ahead.keys()) await this.#forget(name)
    return trees
  }

  async discard(): Promise<void> {
    for (const { file } of this.#trees) await file.discard()
    for (const name of this.#ahead.keys()) await this.#forget(name)
  }

  #settle(source: TreeSource): number {
    const settledMs = this.#deps.clock.now()
    source.settle()
    return settledMs
  }

  async #pass(
    {
      name,
      source,
      settledMs,
      sink,
    }: { name: string; source: TreeSource; settledMs: number; sink: PieceSink<PlacedChunk> },
    options: AddTreeOptions,
  ): Promise<TreeCounts> {
    const chunks = contentStore(await this.#chunks())
    await using scope = new AsyncDisposableStack()
    const ahead = this.#ahead.get(name)
    const base = ahead
      ? new Base(ahead.file.pieces(), ahead.ids === source.ids)
      : await this.#earlier(name, source, scope)
    scope.defer(async () => base?.close())
    const { clock } = this.#deps
    return await new TreePass(
      { name, source, form: pieceFormV1, chunks, base, sink, trustedUntilMs: settledMs, clock },
      options,
    ).run()
  }

  /** The tree of this name in the guest's last backup. One that is damaged costs time, and is no more than a line. */
  async #earlier(
    name: string,
    source: TreeSource,
    scope: AsyncDisposableStack,
  ): Promise<Base<PlacedChunk> | undefined> {
    const { layout, log, ids, random, id } = this.#deps
    const isOfGuest = (other: typeof id) => other.type === id.type && other.id === id.id
    const all = (await ids()).filter(isOfGuest).reverse()
    for (const backup of all.slice(0, basesTried)) {
      try {
        const reader = await BackupReader.open(layout, backup, { log, random })
        scope.use(reader)
        const facts = treesOf(reader.manifest).find((tree) => tree.name === name)
        if (facts) return new Base(this.#piecesOf(reader, name), facts.ids === source.ids)
      } catch (cause) {
        if (!isFault(cause, 'damaged') && !isFault(cause, 'missing') && !isFault(cause, 'invalid')) throw cause
        log.warn('the catalogue of an earlier backup is not used', { backup: printBackupId(backup), cause })
      }
    }
    return undefined
  }

  async *#piecesOf(reader: BackupReader, name: string): AsyncGenerator<BasePiece<PlacedChunk>> {
    const chunks = await this.#chunks()
    const told = (cause: unknown) =>
      this.#deps.log.warn('a piece of the catalogue of an earlier backup is not used', {
        backup: printBackupId(reader.id),
        cause,
      })
    for await (const { entry, piece } of reader.tree(name).pieces(told)) {
      const placed = await reader.treeFile(name).placesOf(entry)
      yield {
        piece,
        chunk: (number) => {
          const { pack, offset, length } = placed.placeOf(number)
          const id = piece.idOf(number)
          const location = chunks.adopt(id, pack, offset, length)
          return location && { id, location }
        },
      }
    }
  }

  async #forget(name: string): Promise<void> {
    await this.#ahead.get(name)?.file[Symbol.asyncDispose]()
    this.#ahead.delete(name)
    await rm(this.#aheadPath(name), { force: true })
  }

  #aheadPath(name: string): string {
    return join(this.#deps.directory, `${name}.ahead`)
  }
}

function contentStore(chunks: ChunkStore): ContentStore<PlacedChunk> {
  return {
    chunkBytes,
    put: async (plain) => {
      const id = digestOf(plain)
      const { location, storedBytes } = await chunks.put(plain, id)
      return { chunk: { id, location }, storedBytes }
    },
  }
}
