/**
 * Slows down guessing of passwords, per user and per address.
 *
 * Each user and each address may fail a number of times in a row, and then once per interval. An attempt
 * counts as failed from its start, so a hundred at one time are a hundred; a success gives that one attempt
 * back and no more, or the owner's logins would refill a guesser's purse, and a guesser's own account his.
 * A stranger's guesses must not lock out the owner: an address the user logged in from before has an
 * account of its own and is not held by what others did to the user.
 *
 * Memory is bounded: the least recently seen are forgotten first. Whoever owns ten thousand addresses can
 * make us forget; the interval per address still holds for each of them.
 */
import { isIPv6 } from 'node:net'
import type { Clock } from '#base/clock.ts'
import { accessLimits } from './limits.ts'

interface Allowance {
  readonly burst: number
  readonly everyMs: number
}

interface Account {
  left: number
  at: number
}

export class LoginThrottle {
  readonly #users: Accounts
  readonly #addresses: Accounts
  readonly #known: Accounts

  constructor(clock: Clock) {
    const { perUser, perAddress } = accessLimits.login
    this.#users = new Accounts(clock, perUser)
    this.#addresses = new Accounts(clock, perAddress)
    this.#known = new Accounts(clock, perUser)
  }

  /** Whether one more attempt is allowed; it is then counted as failed until `succeeded` says otherwise. */
  admit(userid: string, address: string): boolean {
    const network = networkOf(address)
    const [accounts, name] = this.#accountOf(userid, network)
    if (!accounts.mayTake(name) || !this.#addresses.mayTake(network)) return false
    accounts.take(name)
    this.#addresses.take(network)
    return true
  }

  /** Ends an attempt that was admitted. */
  succeeded(userid: string, address: string): void {
    const network = networkOf(address)
    const [accounts, name] = this.#accountOf(userid, network)
    accounts.giveBack(name)
    this.#addresses.giveBack(network)
    this.#known.giveBack(`${userid} ${network}`)
  }

  #accountOf(userid: string, network: string): readonly [Accounts, string] {
    const pair = `${userid} ${network}`
    return this.#known.has(pair) ? [this.#known, pair] : [this.#users, userid]
  }
}

/** Attempts left by name; a name nobody knows has all of them. */
class Accounts {
  readonly #clock: Clock
  readonly #allowance: Allowance
  readonly #accounts = new Map<string, Account>()

  constructor(clock: Clock, allowance: Allowance) {
    this.#clock = clock
    this.#allowance = allowance
  }

  has(name: string): boolean {
    return this.#accounts.has(name)
  }

  mayTake(name: string): boolean {
    return this.#left(name) >= 1
  }

  take(name: string): void {
    this.#put(name, this.#left(name) - 1)
  }

  giveBack(name: string): void {
    this.#put(name, Math.min(this.#allowance.burst, this.#left(name) + 1))
  }

  #left(name: string): number {
    const account = this.#accounts.get(name)
    const { burst, everyMs } = this.#allowance
    if (!account) return burst
    return Math.min(burst, account.left + (this.#clock.monotonic() - account.at) / everyMs)
  }

  /** Puts at the end of the map, whose first key is therefore the least recently seen. */
  #put(name: string, left: number): void {
    this.#accounts.delete(name)
    if (this.#accounts.size >= accessLimits.login.remembered) {
      for (const oldest of this.#accounts.keys()) {
        this.#accounts.delete(oldest)
        break
      }
    }
    this.#accounts.set(name, { left, at: this.#clock.monotonic() })
  }
}

/** An IPv6 customer owns a /64 and counts as one; a mapped IPv4 address is that address. */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined) return mapped
  if (!isIPv6(address)) return address
  const [head = '', tail] = address.toLowerCase().split('%')[0]?.split('::') ?? []
  const [before, after] = [head, tail ?? ''].map((part) => part.split(':').filter(Boolean))
  const zeros = 8 - (before?.length ?? 0) - (after?.length ?? 0)
  const groups = tail === undefined ? (before ?? []) : [...(before ?? []), ...Array(zeros).fill('0'), ...(after ?? [])]
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(String(group), 16).toString(16))
    .join(':')}::/64`
}
