/**
 * The trees of one backup in the making. A tree may be gone through beside the running guest first (`readAhead`); the
 * pass that counts (`add`) then reads only what has changed since, and takes over the rest, from that pass or from the
 * guest's last backup.
 */
import { Fault } from '#base/fault.ts'
import { letGo } from '#base/let-go.ts'
import type { ChunkWriter } from '../chunks/chunk-writer.ts'
import type { OpenDatastore } from '../datastore.ts'
import { kinds } from '../format.ts'
import type { ManifestTree } from '../points/manifest.ts'
import { printPoint, type RestorePoint } from '../point.ts'
import { Base, type BasePiece } from '../tree/base.ts'
import type { ContentStore } from '../tree/content.ts'
import { type AddTreeOptions, type PieceSink, type TreeCounts, TreePass } from '../tree/pass.ts'
import { type Catalogue, damagedTree } from '../tree/catalogue.ts'
import { Piece, pieceForm, printPiece } from '../tree/piece.ts'
import { PieceListWriter } from '../tree/piece-list.ts'
import { TreeReader } from '../tree/reader.ts'
import type { TreeNotes, TreeSource } from '../tree/source.ts'
import { StoredTree } from '../tree/stored-tree.ts'

export interface AddedTree extends ManifestTree {
  /** Read from files. */
  readonly readBytes: number
  /** What whoever owns the tree should be told. */
  readonly notes: TreeNotes
}

interface FirstPass {
  readonly tree: ManifestTree
  readonly settledMs: number
}

/** Earlier backups whose catalogue is looked at, should the newest ones be damaged. */
const basesTried = 3

export interface TreesNeeds {
  readonly open: OpenDatastore
  readonly point: RestorePoint
  readonly chunks: ChunkWriter
  /** Backups of the same guest, oldest first. */
  readonly earlier: readonly RestorePoint[]
}

/** What its manifest says of a tree that is taken over, but for what the datastore makes of it. */
export type CopiedTree = Omit<ManifestTree, 'root' | 'digest' | 'pieces' | 'newChunks' | 'newStoredBytes'>

export class TreesWriter {
  readonly #needs: TreesNeeds
  readonly #ahead = new Map<string, FirstPass>()
  readonly trees: ManifestTree[] = []

  constructor(needs: TreesNeeds) {
    this.#needs = needs
  }

  /** A first pass, whose outcome is no part of the backup. The content it stores is. */
  async readAhead(name: string, source: TreeSource, options: AddTreeOptions): Promise<TreeCounts> {
    const settledMs = this.#settle(source)
    this.#ahead.delete(name)
    const { tree, counts } = await this.#pass({ name, source, settledMs }, options)
    // So that its catalogue can be read back, as that of an earlier backup is.
    await this.#needs.chunks.flush()
    this.#ahead.set(name, { tree, settledMs })
    return counts
  }

  async add(name: string, source: TreeSource, options: AddTreeOptions): Promise<AddedTree> {
    const ahead = this.#ahead.get(name)
    // Under freeze nobody waits for the disk again: what changed since the first pass began is read by the next backup.
    const settledMs = ahead?.settledMs ?? this.#settle(source)
    const { tree, counts } = await this.#pass({ name, source, settledMs }, options)
    this.#ahead.delete(name)
    // What the first pass stored was stored for this backup.
    const added = {
      ...tree,
      newChunks: tree.newChunks + (ahead?.tree.newChunks ?? 0),
      newStoredBytes: tree.newStoredBytes + (ahead?.tree.newStoredBytes ?? 0),
    }
    this.trees.push(added)
    return { ...added, readBytes: counts.readBytes, notes: source.notes() }
  }

  /** Takes a tree over from another datastore, piece by piece: its records stay, and name chunks of this one. */
  async copy(facts: CopiedTree, from: Catalogue): Promise<ManifestTree> {
    await from.check()
    const { keyring } = this.#needs.open
    const list = new PieceListWriter(keyring, this.#needs.chunks)
    let [newChunks, newStoredBytes] = [0, 0]
    for (let number = 0; number < from.pieces; number += 1) {
      const entry = await from.pieceAt(number)
      if (!entry) throw damagedTree(from.name, `it has no piece ${number}`)
      const piece = parsed(await from.read(entry), from)
      const ids: Buffer[] = []
      for (let chunk = 0; chunk < piece.chunks; chunk += 1) {
        const { id, storedBytes } = await this.#store().put(await from.chunk({ entry, piece }, chunk))
        ids.push(id.subarray(0, pieceForm.idBytes))
        newChunks += storedBytes > 0 ? 1 : 0
        newStoredBytes += storedBytes
      }
      const bytes = printPiece(ids, piece.bytes)
      const id = keyring.idOf(kinds.tree, bytes)
      newStoredBytes += await this.#needs.chunks.put(id, kinds.tree, bytes)
      await list.add(id, entry.key)
    }
    const { root, digest, pieces, storedBytes } = await list.finish()
    const ids = { root: root.map((id) => id.toString('hex')), digest }
    const tree = { ...facts, ...ids, pieces, newChunks, newStoredBytes: newStoredBytes + storedBytes }
    this.trees.push(tree)
    return tree
  }

  #settle(source: TreeSource): number {
    const settledMs = this.#needs.open.datastore.deps.clock.now()
    source.settle()
    return settledMs
  }

  async #pass(
    { name, source, settledMs }: { name: string; source: TreeSource; settledMs: number },
    options: AddTreeOptions,
  ): Promise<{ readonly tree: ManifestTree; readonly counts: TreeCounts }> {
    const { open, chunks } = this.#needs
    const { keyring } = open
    const list = new PieceListWriter(keyring, chunks)
    let storedBytes = 0
    const sink: PieceSink = async (key, bytes) => {
      const id = keyring.idOf(kinds.tree, bytes)
      storedBytes += await chunks.put(id, kinds.tree, bytes)
      letGo(bytes)
      await list.add(id, key)
    }
    const { clock } = open.datastore.deps
    const base = await this.#base(name, source)
    try {
      const needs = {
        name,
        source,
        chunks: this.#store(),
        base,
        sink,
        trustedUntilMs: settledMs,
        clock,
      }
      const counts = await new TreePass(needs, options).run()
      const { root, digest, pieces, storedBytes: listBytes } = await list.finish()
      const { readBytes: _, ...kept } = counts
      const newStoredBytes = kept.newStoredBytes + storedBytes + listBytes
      const ids = { root: root.map((id) => id.toString('hex')), digest, ids: source.ids }
      return { tree: { ...kept, ...ids, name, pieces, newStoredBytes }, counts }
    } finally {
      await base?.close()
    }
  }

  #store(): ContentStore {
    const { open, chunks } = this.#needs
    const { keyring } = open
    return {
      chunkBytes: open.datastore.facts.chunkBytes,
      put: async (content) => {
        const id = keyring.idOf(kinds.content, content)
        return { id, storedBytes: await chunks.put(id, kinds.content, content) }
      },
    }
  }

  /** The first pass, or the tree of this name in the guest's last backup. One that cannot be read costs time, and a line. */
  async #base(name: string, source: TreeSource): Promise<Base | undefined> {
    const { open, point, earlier } = this.#needs
    const ahead = this.#ahead.get(name)?.tree
    for (const backup of [...(ahead ? [point] : []), ...earlier.slice(-basesTried).reverse()]) {
      try {
        const tree = backup === point ? ahead : (await open.body(backup)).trees.find((one) => one.name === name)
        if (tree) return await this.#baseOf(tree, backup, source)
      } catch (cause) {
        if (!(cause instanceof Fault)) throw cause
        this.#tell('the catalogue of an earlier backup is not used', backup, cause)
      }
    }
    return undefined
  }

  async #baseOf(tree: ManifestTree, backup: RestorePoint, source: TreeSource): Promise<Base> {
    const { open, point } = this.#needs
    const stored = new StoredTree(open.chunks, tree, `tree ${tree.name} of backup ${printPoint(backup)}`)
    await stored.check()
    const isHit = backup !== point && (await open.datastore.isMarkedDamaged(backup))
    return new Base(this.#piecesOf(new TreeReader(tree, stored), backup, isHit), tree.ids === source.ids)
  }

  /** @param isHit content of it is known to be gone */
  async *#piecesOf(tree: TreeReader, backup: RestorePoint, isHit: boolean): AsyncGenerator<BasePiece> {
    const { chunks, open } = this.#needs
    const { index } = open
    let hasLost = isHit
    const told = (cause: unknown) =>
      this.#tell('a piece of the catalogue of an earlier backup is not used', backup, cause)
    for await (const { piece } of tree.pieces(told)) {
      const lost = new Set<number>()
      // Where a pack is known to be damaged, or content is gone, a backup mends it: nothing is taken for there unseen.
      if (index.hasSuspects || hasLost) {
        for (let number = 0; number < piece.chunks; number += 1) {
          if (!(await chunks.has(piece.idOf(number)))) lost.add(number)
        }
      }
      yield {
        piece,
        chunk: (number) => {
          const id = piece.idOf(number)
          if (!lost.has(number) && chunks.mayHave(id)) return id
          hasLost ||= !index.isCondemned(id)
          return undefined
        },
      }
    }
  }

  #tell(what: string, backup: RestorePoint, cause: unknown): void {
    this.#needs.open.datastore.deps.log.warn(what, { backup: printPoint(backup), cause })
  }
}

function parsed(bytes: Buffer, { form, name }: Catalogue): Piece {
  try {
    return Piece.parse(bytes, form)
  } catch (cause) {
    throw damagedTree(name, 'a piece of it cannot be read', cause)
  }
}
