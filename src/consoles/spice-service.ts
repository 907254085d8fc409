/**
 * What SPICE takes beside the consoles themselves: the port viewers connect to, and the passwords of guests.
 *
 * QEMU knows one password for all who look at a guest. While it may still be in somebody's hands, whoever comes next
 * gets the same: a new one would lock the first out before his viewer has connected. It opens nothing by itself:
 * each viewer has a ticket of his own, and without one nobody reaches the guest.
 */
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { password, type Random } from '#base/random.ts'
import { consoleLimits } from './limits.ts'

/** Where viewers connect, or why they cannot. */
export type SpicePort = { readonly port: number } | { readonly fault: string }

interface Held {
  readonly password: string
  untilMs: number
}

export class SpiceService {
  readonly #clock: Clock
  readonly #random: Random
  #served: () => SpicePort | undefined = () => undefined
  /** By run of a guest. */
  readonly #passwords = new Map<string, Held>()

  constructor({ clock, random }: { readonly clock: Clock; readonly random: Random }) {
    this.#clock = clock
    this.#random = random
  }

  /** Told where it is served, which may change with a restart of what serves it. */
  serveAt(served: () => SpicePort | undefined): void {
    this.#served = served
  }

  /** @throws Fault `unavailable` where viewers by SPICE are not served */
  port(): number {
    const served = this.#served()
    if (served && 'port' in served) return served.port
    if (served) throw new Fault('unavailable', `SPICE is not served: ${served.fault}`)
    throw new Fault('unavailable', 'SPICE is switched off on this node', {
      remedy: 'Start the node with HAKO_SPICE_PORT set to a port: viewers know 3128.',
    })
  }

  /** @param run names one run of a guest */
  passwordFor(run: string): string {
    const nowMs = this.#clock.monotonic()
    for (const [name, { untilMs }] of this.#passwords) if (untilMs <= nowMs) this.#passwords.delete(name)
    const held = this.#passwords.get(run) ?? { password: password(this.#random, 24), untilMs: 0 }
    held.untilMs = nowMs + consoleLimits.spiceWaitMs
    this.#passwords.set(run, held)
    return held.password
  }
}
