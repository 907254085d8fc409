/**
 * Log-ins through a provider that have begun: the secrets of each, until its user comes back, once.
 *
 * In memory on purpose: anybody may begin one, and strangers shall not make the node write. When it ends in between,
 * the user begins again. The oldest one gives way, and who begins very many pushes out their own first.
 */
import type { Clock } from '#base/clock.ts'
import type { Attempt } from '#host/web/openid.ts'
import { accessLimits } from './limits.ts'
import { networkOf } from './throttle.ts'

export interface OpenAttempt extends Attempt {
  readonly realm: string
  /** Where the user's client is. */
  readonly address: string
}

const { attempts, attemptsPerAddress, attemptSeconds } = accessLimits.openid

export class OpenAttempts {
  readonly #clock: Clock
  /** By state, oldest first. */
  readonly #open = new Map<string, OpenAttempt & { readonly until: number }>()
  readonly #perNetwork = new Map<string, Set<string>>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  begin(attempt: OpenAttempt): void {
    const until = this.#clock.monotonic() + attemptSeconds * 1000
    const network = networkOf(attempt.address)
    const [own = new Set<string>()] = [this.#perNetwork.get(network)]
    if (own.size >= attemptsPerAddress) this.#forgetFirst(own)
    else if (this.#open.size >= attempts) this.#forgetFirst(this.#open.keys())
    this.#perNetwork.set(network, own.add(attempt.state))
    this.#open.set(attempt.state, { ...attempt, until })
  }

  /** Nothing when there is none, any more, or it took too long. */
  take(state: string): OpenAttempt | undefined {
    const found = this.#open.get(state)
    this.#forget(state)
    return found && found.until > this.#clock.monotonic() ? found : undefined
  }

  #forgetFirst(states: Iterable<string>): void {
    for (const state of states) return this.#forget(state)
  }

  #forget(state: string): void {
    const found = this.#open.get(state)
    if (!found) return
    this.#open.delete(state)
    const network = networkOf(found.address)
    const own = this.#perNetwork.get(network)
    own?.delete(state)
    if (own?.size === 0) this.#perNetwork.delete(network)
  }
}
