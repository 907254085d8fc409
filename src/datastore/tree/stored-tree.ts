/** A tree of a backup, as its chunks tell of it. Nothing is read before somebody asks. */
import { isFault } from '#base/fault.ts'
import type { ChunkReader } from '../chunks/chunk-reader.ts'
import { Ahead } from '../chunks/ahead.ts'
import { kinds } from '../format.ts'
import type { ManifestTree } from '../points/manifest.ts'
import { type Catalogue, damagedTree, type OpenPiece, type PieceEntry, type TreeKey } from './catalogue.ts'
import { pieceForm } from './piece.ts'
import { type ListedPiece, PieceList, rootOf } from './piece-list.ts'

export class StoredTree implements Catalogue {
  readonly name: string
  readonly form = pieceForm
  readonly #chunks: ChunkReader
  readonly #facts: ManifestTree
  readonly #ahead: Ahead | undefined
  #list: Promise<PieceList> | undefined
  /** The piece whose chunks are read. */
  #last = { number: -1, begin: 0, chunks: 0 }

  constructor(chunks: ChunkReader, facts: ManifestTree, name: string) {
    this.#chunks = chunks
    this.#facts = facts
    this.name = name
    this.#ahead = Ahead.of(chunks)
  }

  get pieces(): number {
    return this.#facts.pieces
  }

  readonly pieceAt = async (number: number): Promise<ListedPiece | undefined> =>
    this.#naming(async () => (await this.#open()).pieceAt(number))

  readonly find = async (key: TreeKey): Promise<ListedPiece | undefined> =>
    this.#naming(async () => (await this.#open()).find(key))

  readonly read = async ({ number }: PieceEntry): Promise<Buffer> => {
    const piece = await this.pieceAt(number)
    if (piece === undefined) throw damagedTree(this.name, `it has no piece ${number}`)
    const chunk = await this.#chunks.read(piece.id, kinds.tree)
    this.#chunks.check(piece.id, chunk)
    return chunk.content
  }

  readonly chunk = async (open: OpenPiece, chunk: number): Promise<Buffer> => {
    const { piece } = open
    const begin = this.#beginOf(open)
    await this.#ahead?.readNow(begin + chunk, begin + piece.chunks, (next) => piece.idOf(next - begin))
    const { content } = await this.#chunks.read(piece.idOf(chunk), kinds.content)
    return content
  }

  /** Where the chunks of a piece stand: behind those of the piece before, when that was read before. */
  #beginOf({ entry: { number }, piece }: OpenPiece): number {
    const last = this.#last
    if (number !== last.number) {
      const begin = number === last.number + 1 ? last.begin + last.chunks : number * 2 ** 24
      this.#last = { number, begin, chunks: piece.chunks }
    }
    return this.#last.begin
  }

  readonly check = async (): Promise<void> => {
    await this.#naming(() => this.#open())
  }

  #open(): Promise<PieceList> {
    if (this.#list) return this.#list
    const opening = this.#openList()
    this.#list = opening
    opening.catch(() => (this.#list = undefined))
    return opening
  }

  async #openList(): Promise<PieceList> {
    const { root, digest, pieces } = this.#facts
    const list = await PieceList.open(this.#chunks, rootOf(root), digest)
    if (list.pieces !== pieces) throw damagedTree(this.name, `it has ${list.pieces} of ${pieces} pieces`)
    return list
  }

  /** Damage of a list says which tree it is of. */
  async #naming<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act()
    } catch (cause) {
      if (!isFault(cause, 'damaged') || cause.message.startsWith('pack ') || cause.message.startsWith('tree '))
        throw cause
      throw damagedTree(this.name, cause.message, cause)
    }
  }
}
