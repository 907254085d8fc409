/**
 * What time it is at a server, as it said with its last answer. By leases others see that we are at work: their times must
 * mean the same to all who put or judge them. Who only reads may be wrong.
 */
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'

/** Well below the time after which a lease is over. */
const apartMaximumMs = 3 * 60_000

export class ServerClock {
  readonly #clock: Clock
  #said: { readonly theirsMs: number; readonly atMs: number } | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** @param theirsMs since 1970; no number where the server does not say */
  hear(theirsMs: number): void {
    if (!Number.isNaN(theirsMs)) this.#said = { theirsMs, atMs: this.#clock.monotonic() }
  }

  /**
   * @param ask the server anything: while a machine sleeps no time passes for it, so what was said before is old
   * @throws Fault `failed`
   */
  async requireNear(server: string, ask: () => Promise<unknown>): Promise<void> {
    if (this.#isNear()) return
    await ask()
    if (!this.#isNear()) throw clockFault(server)
  }

  #isNear(): boolean {
    if (!this.#said) return true
    const expectedMs = this.#said.theirsMs + this.#clock.monotonic() - this.#said.atMs
    return Math.abs(expectedMs - this.#clock.now()) <= apartMaximumMs
  }
}

export function clockFault(server: string, cause?: unknown): Fault {
  return new Fault('failed', `the clock of this machine and that of '${server}' are too far apart`, {
    cause,
    remedy: 'Set the clock that is wrong.',
  })
}
