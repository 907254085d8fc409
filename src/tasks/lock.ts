/**
 * Locks of tasks: `locks/guest/100` in the store holds the identifier of the task that may touch guest 100.
 *
 * A lock is not a lease: a task that died half-way still needs its guest untouched until it is undone, however
 * long nobody looks. Whoever ends a task, be it the worker or the recovery of a dead one, releases its locks;
 * both happen after the undo and before the task counts as ended. All locks of a task are taken in one
 * transaction, so two tasks cannot wait for each other.
 */
import { type Clock, systemClock, waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Entry, Json, Store } from '#store/store.ts'

const prefix = 'locks/'
const lockWaitMs = 10_000
const askEveryMs = 50

export interface LockHolder {
  /** The name without its prefix: `guest/100`. */
  readonly name: string
  readonly upid: string
}

export interface AcquireOptions {
  readonly signal?: AbortSignal
  readonly clock?: Clock
  readonly timeoutMs?: number
  /** Called once when the locks are not free at once. */
  readonly onWait?: (holder: LockHolder) => void
}

/**
 * Takes all the locks or none, waiting up to 10 s for those who hold one.
 * @throws Fault `conflict`: `can't lock 'guest/100': held by task UPID…`; `aborted` when the signal fires
 */
export async function acquireLocks(
  store: Store,
  names: readonly string[],
  upid: string,
  options: AcquireOptions = {},
): Promise<void> {
  const { signal, clock = systemClock, timeoutMs = lockWaitMs, onWait } = options
  const keys = [...new Set(names)].map((name) => prefix + name)
  if (keys.length === 0) return
  let holder: LockHolder | undefined
  const attempt = async () => {
    const isTaken = await takeAll(store, keys, upid)
    if (isTaken) return true
    const isFirst = holder === undefined
    holder = (await holderOfAny(store, keys)) ?? holder
    if (isFirst && holder) onWait?.(holder)
    return false
  }
  try {
    await waitFor(attempt, { what: 'locks', timeoutMs, everyMs: askEveryMs, signal, clock })
  } catch (cause) {
    if (signal?.aborted) throw new Fault('aborted', 'interrupted while waiting for a lock', { cause })
    if (!isFault(cause, 'timeout')) throw cause
    const { name, upid: other } = holder ?? { name: names.join(', '), upid: 'unknown' }
    throw new Fault('conflict', `can't lock '${name}': held by task ${other}`, {
      remedy: `Wait for that task to end (hako task show '${other}'), or stop it (hako task stop '${other}').`,
    })
  }
}

async function takeAll(store: Store, keys: readonly string[], upid: string): Promise<boolean> {
  try {
    await store.transact(
      keys.map((key) => ({ key, revision: 0 })),
      keys.map((key) => ({ put: key, value: { upid } })),
    )
    return true
  } catch (error) {
    if (isFault(error, 'conflict')) return false
    throw error
  }
}

async function holderOfAny(store: Store, keys: readonly string[]): Promise<LockHolder | undefined> {
  for (const key of keys) {
    const entry = await store.get(key)
    if (entry) return toHolder(entry)
  }
  return undefined // It was released just now.
}

/** Who holds what, sorted by name. */
export async function heldLocks(store: Store): Promise<LockHolder[]> {
  return (await store.list(prefix)).map(toHolder)
}

/**
 * Releases every lock of which `isOver` says that its holder is over. May run twice. It asks about holders
 * after it has listed them, so a task that starts meanwhile cannot be mistaken for one that is unknown.
 */
export async function releaseLocks(
  store: Store,
  isOver: (upid: string, name: string) => boolean | Promise<boolean>,
): Promise<void> {
  for (const entry of await store.list(prefix)) {
    const { upid, name } = toHolder(entry)
    if (!(await isOver(upid, name))) continue
    try {
      await store.transact([{ key: entry.key, revision: entry.revision }], [{ delete: entry.key }])
    } catch (error) {
      // Somebody else released it, and perhaps another task holds it now.
      if (!isFault(error, 'conflict')) throw error
    }
  }
}

function toHolder({ key, value }: Entry): LockHolder {
  return { name: key.slice(prefix.length), upid: upidIn(value) }
}

function upidIn(value: Json): string {
  return typeof value === 'object' && value !== null && 'upid' in value && typeof value.upid === 'string'
    ? value.upid
    : ''
}
