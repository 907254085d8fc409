/** Takes a stream of pieces apart at other places than where it was cut. */
export class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>
  readonly #onRead: (bytes: number) => void
  #held: Buffer = Buffer.alloc(0)
  #isAtEnd = false

  /** @param onRead told how much was read anew; what it throws ends the reading */
  constructor(pieces: AsyncIterable<Uint8Array>, onRead: (bytes: number) => void = () => {}) {
    this.#source = pieces[Symbol.asyncIterator]()
    this.#onRead = onRead
  }

  /** The next bytes if they are there already. */
  takeNow(bytes: number): Buffer | undefined {
    if (this.#held.length < bytes) return undefined
    const taken = this.#held.subarray(0, bytes)
    this.#held = this.#held.subarray(bytes)
    return taken
  }

  /** Exactly so many bytes, or nothing when the stream ends before. */
  async take(bytes: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = [this.#held]
    let missing = bytes - this.#held.length
    while (missing > 0) {
      const piece = await this.#next()
      if (piece === undefined) return undefined
      parts.push(piece)
      missing -= piece.length
    }
    if (parts.length > 1) this.#held = Buffer.concat(parts)
    return this.takeNow(bytes)
  }

  /** At most so many of the next bytes, as they come; nothing at the end of the stream. */
  async some(most: number): Promise<Buffer | undefined> {
    if (this.#held.length === 0) {
      const piece = await this.#next()
      if (piece === undefined) return undefined
      this.#held = piece
    }
    return this.takeNow(Math.min(most, this.#held.length))
  }

  /** Lets whoever makes the pieces leave off. */
  async close(): Promise<void> {
    await this.#source.return?.()
  }

  /** Never an empty piece. */
  async #next(): Promise<Buffer | undefined> {
    for (;;) {
      if (this.#isAtEnd) return undefined
      const { done, value } = await this.#source.next()
      if (done === true) this.#isAtEnd = true
      else if (value.length > 0) {
        this.#onRead(value.length)
        return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
      }
    }
  }
}
