/**
 * A store in memory, for tests and simulations. Nothing of it survives the process.
 *
 * Who may run beside whom: any number of handles on one `MemoryWorld`; each call happens in one turn of the
 * event loop, so a transaction is atomic towards all of them.
 */
import { type Clock, systemClock } from '#base/clock.ts'
import { limits } from '#base/limits.ts'
import { type Random, systemRandom } from '#base/random.ts'
import {
  checkKey,
  checkListSize,
  checkTimeToLive,
  closedStore,
  conflictAt,
  leaseEnded,
  listBound,
  prepareWrites,
  textToValue,
  type TextWrite,
} from './bounds.ts'
import { type Mark, memoryMark } from './mark.ts'
import type { Change, Entry, Guard, Json, Lease, LeaseId, Store, Write } from './store.ts'
import { type ChangeLog, fellBehind, follow, type LoggedChange, News } from './watch.ts'

interface Kept {
  readonly text: string
  readonly revision: number
  readonly lease: LeaseId | undefined
}

/** What the handles share. */
export class MemoryWorld {
  readonly entries = new Map<string, Kept>()
  readonly leases = new Map<LeaseId, { ttlMs: number; endsAt: number }>()
  readonly changes: LoggedChange[] = []
  readonly handles = new Set<News>()
  readonly mark = memoryMark()
  revision = 0
  /** Position and revision of the last change that was forgotten. */
  forgotten = { position: 0, revision: 0 }

  /** Happens as a whole: everything that may refuse it was asked before. */
  apply(writes: readonly TextWrite[]): void {
    const real = writes.filter(({ key, text }) => text !== undefined || this.entries.has(key))
    if (real.length === 0) return
    this.revision += 1
    this.mark.touch()
    for (const { key, text, lease } of real) {
      if (text === undefined) this.entries.delete(key)
      else this.entries.set(key, { text, revision: this.revision, lease })
      const position = (this.changes.at(-1)?.position ?? this.forgotten.position) + 1
      this.changes.push({ position, key, revision: this.revision, text })
    }
    const gone = this.changes.splice(0, this.changes.length - limits.store.watchQueue).at(-1)
    if (gone) this.forgotten = gone
    for (const news of this.handles) news.tell()
  }

  /** Ends leases whose time is over, with what was written under them. */
  expire(now: number): boolean {
    const ended = [...this.leases].filter(([, { endsAt }]) => endsAt <= now).map(([id]) => id)
    if (ended.length === 0) return false
    this.end(ended)
    return true
  }

  end(ids: readonly LeaseId[]): void {
    for (const id of ids) this.leases.delete(id)
    const keys = [...this.entries].filter(([, { lease }]) => lease !== undefined && ids.includes(lease))
    this.apply(keys.map(([key]) => ({ key, text: undefined, lease: undefined })).toSorted(byKey))
  }
}

/** Opens a handle on a world in memory; without one, on a new world of its own. */
export function openMemoryStore(
  world = new MemoryWorld(),
  { clock = systemClock, random = systemRandom }: { readonly clock?: Clock; readonly random?: Random } = {},
): Store {
  return new MemoryStore(world, clock, random)
}

class MemoryStore implements Store {
  readonly #world: MemoryWorld
  readonly #clock: Clock
  readonly #random: Random
  readonly #news: News
  readonly mark: Mark

  constructor(world: MemoryWorld, clock: Clock, random: Random) {
    this.#world = world
    this.mark = world.mark
    this.#clock = clock
    this.#random = random
    this.#news = new News(() => world.expire(clock.now()))
    world.handles.add(this.#news)
  }

  /** The world as it is now; leases that are over have ended. */
  #now(): MemoryWorld {
    if (this.#news.isClosed) throw closedStore()
    this.#world.expire(this.#clock.now())
    return this.#world
  }

  get = async <T extends Json>(key: string): Promise<Entry<T> | undefined> => {
    checkKey(key)
    const kept = this.#now().entries.get(key)
    return kept && { key, value: textToValue<T>(key, kept.text), revision: kept.revision }
  }

  list = async <T extends Json>(
    prefix: string,
    { after = '', limit }: { readonly after?: string; readonly limit?: number } = {},
  ): Promise<Entry<T>[]> => {
    const found = [...this.#now().entries]
      .map(([key, kept]) => ({ key, kept }))
      .filter(({ key }) => key.startsWith(prefix) && inByteOrder(key, after) > 0)
      .toSorted(byKey)
      .slice(0, listBound(limit))
    checkListSize(prefix, found.length)
    return found.map(({ key, kept }) => ({ key, value: textToValue<T>(key, kept.text), revision: kept.revision }))
  }

  transact = async (guards: readonly Guard[], writes: readonly Write[]): Promise<number> => {
    const prepared = prepareWrites(guards, writes)
    const world = this.#now()
    for (const guard of guards) {
      const found = world.entries.get(guard.key)?.revision ?? 0
      if (found !== guard.revision) throw conflictAt(guard, found)
    }
    for (const { lease } of prepared) if (lease !== undefined && !world.leases.has(lease)) throw leaseEnded(lease)
    world.apply(prepared)
    return world.revision
  }

  revision = async (): Promise<number> => this.#now().revision

  watch = (prefix: string, since: number, signal: AbortSignal): AsyncIterable<Change> =>
    follow(logOf(this.#world), this.#news, prefix, since, signal)

  lease = async (ttlMs: number): Promise<Lease> => {
    checkTimeToLive(ttlMs)
    const id = this.#random.uuid()
    this.#now().leases.set(id, { ttlMs, endsAt: this.#clock.now() + ttlMs })
    return {
      id,
      renew: async () => {
        const lease = this.#now().leases.get(id)
        if (!lease) throw leaseEnded(id)
        lease.endsAt = this.#clock.now() + lease.ttlMs
      },
      [Symbol.asyncDispose]: async () => this.#now().end([id]),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#world.handles.delete(this.#news)
    this.#news.close()
  }
}

function logOf(world: MemoryWorld): ChangeLog {
  return {
    positionOf(revision) {
      if (revision < world.forgotten.revision) throw fellBehind()
      return world.changes.findLast((change) => change.revision <= revision)?.position ?? world.forgotten.position
    },
    after(position, count) {
      if (position < world.forgotten.position) throw fellBehind()
      const from = position - world.forgotten.position
      return world.changes.slice(from, from + count)
    },
  }
}

/** As SQLite orders text: by its UTF-8 bytes, where JavaScript's `<` goes by UTF-16 units. */
function inByteOrder(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

function byKey(a: { readonly key: string }, b: { readonly key: string }): number {
  return inByteOrder(a.key, b.key)
}
