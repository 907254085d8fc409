/**
 * Pieces of maps that were read last, put together and proven. The next backup's piece is most often a delta of the one
 * before: whoever goes through the backups in their order reads each delta once instead of each chain of them.
 */
const most = 64

/** A piece as it is, whatever it is stored as. Nobody changes the ids. */
export interface ReadPiece {
  readonly ids: Buffer
  /** Deltas it is made of. */
  readonly depth: number
}

export class RecentPieces {
  readonly #pieces = new Map<string, ReadPiece>()

  /** @param id 16 bytes or more */
  get(id: Buffer): ReadPiece | undefined {
    return this.#pieces.get(keyOf(id))
  }

  add(id: Buffer, piece: ReadPiece): void {
    const [oldest] = this.#pieces.keys()
    if (this.#pieces.size >= most && oldest !== undefined) this.#pieces.delete(oldest)
    this.#pieces.set(keyOf(id), piece)
  }
}

function keyOf(id: Buffer): string {
  return id.toString('latin1', 0, 16)
}
