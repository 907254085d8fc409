/**
 * A sign that somebody is at work, so that nobody removes what they rely on.
 *
 * It is renewed while its owner lives. Where the place can hold a mark for a process, the death of the owner is seen at
 * once; elsewhere a lease is over some minutes after it was last renewed. An owner who lives but could not renew it, as the
 * machine slept or the network was away, finds that others have taken it for dead, and says so before anything comes to
 * rely on what may be gone.
 *
 * A clock may be set meanwhile. What is written never goes back: it is the time of before and what has passed since, and
 * later only when the clock is. So an owner whose clock was right stays alive to others, and one whose clock was ahead
 * looks alive for too long, which costs room and no backup. A clock that is set forward cannot be told from a machine that
 * slept, whose time stood still: it counts as silence.
 */
import type { Clock } from '#base/clock.ts'
import { seconds } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { checkProperties } from '#base/schema/check.ts'
import { enumOf, integer, optional, string } from '#base/schema/schema.ts'
import { seal, unseal } from '../sealed.ts'
import type { Hold, Place } from './place.ts'

export type LeaseKind = 'write' | 'read' | 'collect'

const renewedEveryMs = 60_000
export const leaseSeconds = 10 * 60
/** A renewal was missed: it is time to look. */
const lateMs = 2 * renewedEveryMs
const leaseMaximumBytes = 4_096
const heldEnding = '.held'
const attempts = 8

const properties = {
  kind: enumOf(['write', 'read', 'collect']),
  began: integer({ minimum: 0, maximum: 253_402_300_799 }),
  renewed: integer({ minimum: 0, maximum: 253_402_300_799 }),
  by: string({ maxLength: 256 }),
  /** The backup that is read. */
  reads: optional(string({ maxLength: 512 })),
}

export interface LeaseNeeds {
  readonly place: Place
  readonly clock: Clock
  readonly random: Random
}

/** By the clock that may be set, and by the one that may not. */
interface Moment {
  readonly nowMs: number
  readonly monotonicMs: number
}

function momentOf(clock: Clock): Moment {
  return { nowMs: clock.now(), monotonicMs: clock.monotonic() }
}

interface Facts {
  readonly kind: LeaseKind
  readonly by: string
  readonly reads: string | undefined
  readonly name: string
  readonly hold: Hold | undefined
}

export class Lease implements AsyncDisposable {
  readonly #needs: LeaseNeeds
  readonly #name: string
  readonly #kind: LeaseKind
  readonly #by: string
  readonly #reads: string | undefined
  readonly #hold: Hold | undefined
  readonly #ended = new AbortController()
  readonly #renewing: Promise<void>
  /** When others saw it last, by the clock they judge it by, in milliseconds. */
  #renewedMs: number
  /** That moment by our clocks. */
  #seen: Moment
  #isLost = false
  /** Seconds since 1970. */
  readonly began: number

  private constructor(needs: LeaseNeeds, facts: Facts) {
    this.#needs = needs
    this.#kind = facts.kind
    this.#by = facts.by.slice(0, 256)
    this.#reads = facts.reads
    this.#name = facts.name
    this.#hold = facts.hold
    this.began = seconds(needs.clock)
    this.#seen = momentOf(needs.clock)
    this.#renewedMs = this.#seen.nowMs
    this.#renewing = this.#keepRenewing()
  }

  /**
   * @param by who, for people: a host and a process
   * @param reads the backup that is read
   * @throws Fault `unavailable`
   */
  static async begin(needs: LeaseNeeds, kind: LeaseKind, by: string, reads?: string): Promise<Lease> {
    const { place, random } = needs
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      const name = `leases/${place.leaseId?.() ?? random.uuid()}`
      const lease = new Lease(needs, { kind, by, reads, name, hold: await place.hold?.(heldName(name)) })
      try {
        await lease.#put()
        // Between being made and being held, somebody may have taken the mark for a leftover.
        if (!place.isHeld || place.isHeld(heldName(name))) return lease
      } catch (fault) {
        await lease[Symbol.asyncDispose]()
        throw fault
      }
      await lease[Symbol.asyncDispose]()
    }
    throw new Fault('unavailable', `no lease can be held in '${place.label}'`)
  }

  async #put(): Promise<void> {
    const seen = momentOf(this.#needs.clock)
    const renewedMs = Math.max(seen.nowMs, this.#renewedMs + seen.monotonicMs - this.#seen.monotonicMs)
    const value = { kind: this.#kind, began: this.began, renewed: Math.floor(renewedMs / 1000), by: this.#by }
    const reads = this.#reads === undefined ? {} : { reads: this.#reads }
    await this.#needs.place.replace(this.#name, Buffer.from(seal({ ...value, ...reads })))
    this.#renewedMs = renewedMs
    this.#seen = seen
  }

  /** For how long nobody has heard of it, at worst: time stands still for a machine that sleeps, and clocks are set. */
  #silence(): { readonly ms: number; readonly isDoubtful: boolean } {
    const { nowMs, monotonicMs } = momentOf(this.#needs.clock)
    const byClockMs = nowMs - this.#seen.nowMs
    const ms = Math.max(byClockMs, monotonicMs - this.#seen.monotonicMs)
    return { ms, isDoubtful: ms > lateMs || byClockMs < 0 }
  }

  async #renew(): Promise<void> {
    const { place } = this.#needs
    // Whoever takes it for one of the dead clears it away.
    const isThere = async () => (await place.get(this.#name, leaseMaximumBytes)) !== undefined
    this.#isLost ||= !this.#hold && (this.#silence().ms > leaseSeconds * 1000 || !(await isThere()))
    if (!this.#isLost) await this.#put()
  }

  /**
   * To be asked before anybody may come to rely on what was there under this lease. Costs nothing as long as it is renewed.
   * @throws Fault `unavailable` when others may have taken its owner for dead
   */
  async requireHeld(): Promise<void> {
    const { place } = this.#needs
    if (this.#hold) return
    if (!this.#isLost && this.#silence().isDoubtful) await this.#renew()
    if (!this.#isLost) return
    throw new Fault(
      'unavailable',
      `nobody in '${place.label}' has heard of this for too long, so what it relies on may be gone`,
      {
        remedy: 'Try again. That happens when a machine has slept, or its network was away for minutes.',
      },
    )
  }

  async #keepRenewing(): Promise<void> {
    const { signal } = this.#ended
    while (!signal.aborted) {
      await this.#needs.clock.sleep(renewedEveryMs, signal).catch(() => {})
      // A place that is away for a while is tried again; whoever writes there finds out by themselves.
      if (!signal.aborted && !this.#isLost) await this.#renew().catch(() => {})
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
    await this.#renewing
    // One that cannot be removed is over by itself, in a while: that must not fail what was done under it.
    const remove = (name: string) =>
      this.#needs.place.remove(name).catch((fault: unknown) => {
        if (!(fault instanceof Fault)) throw fault
      })
    await remove(this.#name)
    this.#hold?.release()
    if (this.#hold) await remove(heldName(this.#name))
  }
}

function heldName(name: string): string {
  return `${name}${heldEnding}`
}

export interface LiveLease {
  readonly name: string
  readonly kind: LeaseKind
  readonly began: number
  readonly by: string
  readonly reads?: string | undefined
}

/** Leases that hold; what others left is cleared away. */
export async function liveLeases({ place, clock }: Omit<LeaseNeeds, 'random'>): Promise<LiveLease[]> {
  const live: LiveLease[] = []
  for await (const { name } of place.list('leases/')) {
    if (name.endsWith(heldEnding)) {
      // Of somebody who died before the lease was there.
      const lease = name.slice(0, -heldEnding.length)
      await place.removeFree?.(name, async () => (await place.get(lease, leaseMaximumBytes)) !== undefined)
      continue
    }
    const content = await place.get(name, leaseMaximumBytes)
    if (!content) continue
    const checked = checkProperties(properties, Object(readable(content, name)) as Record<string, unknown>)
    const lease = checked.ok ? checked.values : undefined
    const isHeld = place.isHeld?.(heldName(name))
    // A clock that was set back makes an old lease look young, never a young one old.
    const isFresh = lease !== undefined && seconds(clock) - lease.renewed <= leaseSeconds
    // Whoever lives but left something unreadable may rely on anything.
    if (isHeld ?? isFresh) live.push({ ...(lease ?? { kind: 'write', began: 0, by: 'unknown' }), name })
    else await clearAway(place, name)
  }
  return live
}

/** Who may remove nothing sees all the same that it is over. */
async function clearAway(place: Place, name: string): Promise<void> {
  try {
    await place.remove(name)
    await place.remove(heldName(name))
  } catch (fault) {
    if (!isFault(fault, 'denied')) throw fault
  }
}

function readable(content: Buffer, name: string): unknown {
  try {
    return unseal(content.toString('utf8'), name)
  } catch {
    return undefined
  }
}
