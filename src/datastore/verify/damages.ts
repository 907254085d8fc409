/** All damage a look at something finds, up to a bound, so that one bad chunk does not hide the next. */
import { Fault, isFault, messageOf } from '#base/fault.ts'

const damagesMaximum = 64

export class Damages {
  readonly #what: string
  readonly #found: string[] = []

  /** @param what is looked at, for the message */
  constructor(what: string) {
    this.#what = what
  }

  /** Runs a check and keeps the damage it finds. @throws Fault `damaged` once there is too much of it */
  async noted(check: () => Promise<unknown>): Promise<void> {
    try {
      await check()
    } catch (fault) {
      if (!isFault(fault, 'damaged') && !isFault(fault, 'missing')) throw fault
      this.add(messageOf(fault))
    }
  }

  add(damage: string): void {
    if (!this.#found.includes(damage)) this.#found.push(damage)
    if (this.#found.length > damagesMaximum) this.throwIfAny()
  }

  /** One fault for all of it; the first stands first. */
  throwIfAny(): void {
    const [first] = this.#found
    if (first === undefined) return
    const { length } = this.#found
    const more = length === 1 ? '' : `; ${length - 1} more in ${this.#what}: ${this.#found.slice(1).join('; ')}`
    throw new Fault('damaged', `${first}${more}`, {
      remedy: 'Restore from another backup, and back up the guest again: damaged chunks are then stored anew.',
    })
  }
}
