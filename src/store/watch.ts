/**
 * Following the changes of a store: what the drivers share.
 *
 * A driver keeps a log of the last `limits.store.watchQueue` changes, each at a position that only grows.
 * A follower remembers its position and reads on from there, so nothing is queued per follower, a slow one
 * costs nothing, and none can miss a change without being told. Rejected: pushing changes to listeners,
 * which needs a queue per listener and loses what happens between listing and listening.
 */
import { every } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { textToValue } from './bounds.ts'
import type { Change } from './store.ts'

export interface LoggedChange {
  readonly position: number
  readonly key: string
  readonly revision: number
  /** Absent when the key was deleted. */
  readonly text: string | undefined
}

export interface ChangeLog {
  /** The position of the last change up to and including `revision`. @throws Fault `exhausted` when it is forgotten. */
  readonly positionOf: (revision: number) => number
  /** Up to `count` changes after the position. @throws Fault `exhausted` when some of them are forgotten. */
  readonly after: (position: number, count: number) => readonly LoggedChange[]
}

const changesPerRead = 100
const lookEveryMs = 50

/** Yields changes below `prefix` until the signal fires or the store closes. */
export async function* follow(
  log: ChangeLog,
  news: News,
  prefix: string,
  since: number,
  signal: AbortSignal,
): AsyncGenerator<Change, void, undefined> {
  let position: number | undefined
  while (!signal.aborted && !news.isClosed) {
    // Taken before reading: what arrives while the follower is busy counts as news.
    const version = news.version
    position ??= log.positionOf(since)
    const changes = log.after(position, changesPerRead)
    for (const { key, revision, text, position: at } of changes) {
      position = at
      if (!key.startsWith(prefix)) continue
      yield text === undefined ? { key, revision } : { key, revision, value: textToValue(key, text) }
      if (signal.aborted) return
    }
    if (changes.length < changesPerRead) await news.after(version, signal)
  }
}

/** Wakes followers. While somebody waits, it also calls `look` every 50 ms to find out about others' changes. */
export class News {
  readonly #look: () => boolean
  readonly #closing = new AbortController()
  readonly #waiting = new Set<() => void>()
  #version = 0
  #looking: Disposable | undefined

  /** @param look says whether something changed without `tell` having been called */
  constructor(look: () => boolean) {
    this.#look = look
  }

  get version(): number {
    return this.#version
  }

  get isClosed(): boolean {
    return this.#closing.signal.aborted
  }

  tell(): void {
    this.#version += 1
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const wake of waiting) wake()
  }

  /** Resolves once there is news after that version, or the signal fires, or the store closes. */
  async after(version: number, signal: AbortSignal): Promise<void> {
    if (version !== this.#version || signal.aborted || this.isClosed) return
    const { promise, resolve } = Promise.withResolvers<void>()
    const wake = () => resolve()
    this.#waiting.add(wake)
    signal.addEventListener('abort', wake, { once: true })
    this.#looking ??= every(lookEveryMs, () => this.#lookWhileSomebodyWaits())
    try {
      await promise
    } finally {
      signal.removeEventListener('abort', wake)
      this.#waiting.delete(wake)
    }
  }

  close(): void {
    this.#closing.abort()
    this.#stopLooking()
    this.tell()
  }

  #lookWhileSomebodyWaits(): void {
    if (this.#waiting.size === 0) this.#stopLooking()
    // A store that cannot be read wakes them too: each then meets the fault where it can handle it.
    else if (this.#saysNews()) this.tell()
  }

  #stopLooking(): void {
    this.#looking?.[Symbol.dispose]()
    this.#looking = undefined
  }

  #saysNews(): boolean {
    try {
      return this.#look()
    } catch {
      return true
    }
  }
}

export function fellBehind(): Fault {
  return new Fault(
    'exhausted',
    `the watch fell behind by more than ${limits.store.watchQueue} changes: list again and watch from there`,
  )
}
