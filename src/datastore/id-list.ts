/** A sorted list of short ids in one buffer. */
import { shortIdBytes } from './format.ts'

export class IdList {
  readonly #ids: Buffer

  /** @param ids in order; the buffer is taken over */
  constructor(ids: Buffer) {
    this.#ids = ids
  }

  get count(): number {
    return this.#ids.length / shortIdBytes
  }

  get bytes(): Buffer {
    return this.#ids
  }

  has(id: Buffer): boolean {
    let [low, high] = [0, this.count - 1]
    while (low <= high) {
      const middle = (low + high) >> 1
      const at = middle * shortIdBytes
      const order = this.#ids.compare(id, 0, shortIdBytes, at, at + shortIdBytes)
      if (order === 0) return true
      if (order < 0) low = middle + 1
      else high = middle - 1
    }
    return false
  }
}
