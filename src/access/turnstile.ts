/** Lets a few in at a time and a bounded number wait: password checks are memory, and logins come from anybody. */
import { Fault } from '#base/fault.ts'

export class Turnstile {
  readonly #atOnce: number
  readonly #maxWaiting: number
  readonly #waiting: (() => void)[] = []
  #inside = 0

  constructor({ atOnce, waiting }: { atOnce: number; waiting: number }) {
    this.#atOnce = atOnce
    this.#maxWaiting = waiting
  }

  /** @throws Fault `exhausted` when too many wait already. */
  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.#inside < this.#atOnce) this.#inside += 1
    else await this.#turn()
    try {
      return await work()
    } finally {
      // The place is handed on, not given up and taken again: nobody slips in between.
      const next = this.#waiting.shift()
      if (next) next()
      else this.#inside -= 1
    }
  }

  #turn(): Promise<void> {
    if (this.#waiting.length >= this.#maxWaiting) {
      throw new Fault('exhausted', 'too many logins at one time', { remedy: 'Try again in a few seconds.' })
    }
    return new Promise((resolve) => this.#waiting.push(resolve))
  }
}
