/** Takes exact numbers of bytes from a stream; what came and was not asked for waits, and is at most one piece. */
export class ByteStream implements AsyncDisposable {
  readonly #pieces: AsyncIterator<Uint8Array>
  #rest: Uint8Array = new Uint8Array()

  constructor(pieces: AsyncIterable<Uint8Array>) {
    this.#pieces = pieces[Symbol.asyncIterator]()
  }

  /** Fills `into` from its start and returns how many bytes there were: fewer only at the end of the stream. */
  async fill(into: Uint8Array): Promise<number> {
    let done = 0
    while (done < into.length) {
      if (this.#rest.length === 0 && !(await this.#more())) break
      const part = this.#rest.subarray(0, into.length - done)
      into.set(part, done)
      this.#rest = this.#rest.subarray(part.length)
      done += part.length
    }
    return done
  }

  /** Ends the stream, read or not. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pieces.return?.()
  }

  async #more(): Promise<boolean> {
    const next = await this.#pieces.next()
    if (next.done) return false
    this.#rest = next.value
    return true
  }
}
