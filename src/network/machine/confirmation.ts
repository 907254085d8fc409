/**
 * Confirmation of a change of the network: proof that the node can still be reached.
 *
 * Clients of Proxmox VE know no such call, so what they do anyway must count: after a change they ask how its task is
 * doing. A permitted request by the user who asked for the change, arriving over the network once the new network has
 * been in force for a moment, is that proof. A request from this machine itself proves nothing about a cable, and counts
 * only where the change was asked for from here over TCP as well; whoever asked for it on the local socket has to say
 * so, or to knock over the network.
 *
 * The notice lies in the store, because three processes meet there: the task that changed the network and waits, the
 * daemon that hears requests, and whoever puts the old network back when both have died.
 */
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { enumOf, number, object, optional, type Static, string } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

export const confirmDefaultSeconds = 60
export const confirmMostSeconds = 600
/** What was under way when the network changed may still arrive; it says nothing about the new one. */
const settleMs = 1_000
/** Requests between one look and the next are not looked at: shorter than `settleMs`, so none that could be a proof. */
const lookEveryMs = 250
/** How long after its start a change may still begin: it waits for others, and for a free place among the tasks. */
const expectMs = 120_000

const ways = ['local', 'loopback', 'network'] as const
export type Way = (typeof ways)[number]

const notice = object({
  upid: string({ maxLength: 512 }),
  user: string({ maxLength: 128 }),
  way: enumOf(ways),
  /** Milliseconds since 1970, once the new network is in force. */
  sinceMs: optional(number()),
  untilMs: optional(number()),
  confirmedBy: optional(string({ maxLength: 256 })),
})
export type Notice = Static<typeof notice>

export interface Caller {
  readonly user: string
  /** Empty on the local socket. */
  readonly remoteAddress: string
}

/** @param remoteAddress of a client; empty on the local socket */
export function wayOf(remoteAddress: string): Way {
  if (remoteAddress === '') return 'local'
  return /^(?:::ffff:)?127\.|^::1$/.test(remoteAddress) ? 'loopback' : 'network'
}

const key = 'change'

export class Confirmations {
  readonly #notices: Documents<Notice>
  readonly #clock: Clock
  /** Until then every request is looked at; a daemon that has just started may find a change under way. */
  #listenUntilMs: number
  #lookedMs = -Infinity

  constructor({ store, clock }: { readonly store: Store; readonly clock: Clock }) {
    this.#notices = new Documents(store, { noun: 'change of the network', prefix: 'network/change/', schema: notice })
    this.#clock = clock
    this.#listenUntilMs = clock.monotonic() + expectMs
  }

  /** What is being changed, or waits for confirmation. */
  async current(): Promise<Notice | undefined> {
    return (await this.#notices.find(key))?.value
  }

  async announce(given: Pick<Notice, 'upid' | 'user' | 'way'>): Promise<void> {
    await this.#notices.put(key, { ...given })
  }

  /** The new network is in force, and goes unless somebody confirms in time. */
  async begin(untilMs: number): Promise<void> {
    await this.#notices.update(key, (value) => ({ ...value, sinceMs: this.#clock.now(), untilMs }))
  }

  async forget(upid: string): Promise<void> {
    await this.#notices.alter(key, (value) => (value?.upid === upid ? undefined : value))
  }

  /** @throws Fault `conflict` when nothing waits */
  async confirm({ user, remoteAddress }: Caller): Promise<void> {
    const found = await this.current()
    if (found?.confirmedBy !== undefined) return
    if (found?.sinceMs === undefined) {
      throw new Fault('conflict', 'no change of the network waits for confirmation', {
        remedy: 'A change is confirmed after `hako network apply`, within its time.',
      })
    }
    await this.#note(describe({ user, remoteAddress }))
  }

  /** A change was asked for in this process: from now on requests are listened to. */
  expect(): void {
    this.#listenUntilMs = this.#clock.monotonic() + expectMs
  }

  /** A permitted request has arrived. Costs nothing while no change is expected. */
  async heard(caller: Caller): Promise<void> {
    const now = this.#clock.monotonic()
    // What was not there a moment ago is now too new to be confirmed.
    if (now > this.#listenUntilMs || now - this.#lookedMs < lookEveryMs) return
    const found = await this.current()
    if (!found) {
      this.#lookedMs = now
      return
    }
    this.expect()
    if (found.confirmedBy === undefined && this.#isProof(found, caller)) await this.#note(describe(caller))
  }

  #isProof({ user, way, sinceMs }: Notice, caller: Caller): boolean {
    if (sinceMs === undefined || this.#clock.now() - sinceMs < settleMs || caller.user !== user) return false
    const arrival = wayOf(caller.remoteAddress)
    return arrival === 'network' || (arrival === 'loopback' && way === 'loopback')
  }

  async #note(confirmedBy: string): Promise<void> {
    await this.#notices.alter(key, (value) => (value?.sinceMs === undefined ? value : { ...value, confirmedBy }))
  }
}

function describe({ user, remoteAddress }: Caller): string {
  return remoteAddress === '' ? `${user} on this machine` : `${user} from ${remoteAddress}`
}
