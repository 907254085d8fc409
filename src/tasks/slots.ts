/** So many may work at once; the others wait in the order they came. */
export class Slots {
  readonly #waiting = new Set<() => void>()
  #free: number

  constructor(count: number) {
    this.#free = count
  }

  get waiting(): number {
    return this.#waiting.size
  }

  /** Resolves true with a slot, which the caller gives back; false when `over` came first. */
  async take(over?: Promise<void>): Promise<boolean> {
    if (this.#free > 0) {
      this.#free -= 1
      return true
    }
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const enter = () => resolve(true)
    this.#waiting.add(enter)
    void over?.then(() => this.#waiting.delete(enter) && resolve(false))
    return promise
  }

  /** Takes a slot even if none is free, for what runs already. */
  takeAnyway(): void {
    this.#free -= 1
  }

  giveBack(): void {
    this.#free += 1
    const [first] = this.#waiting
    if (this.#free <= 0 || !first) return
    this.#waiting.delete(first)
    this.#free -= 1
    first()
  }
}
