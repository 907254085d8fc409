/**
 * The only place that knows what time it is and how to wait.
 *
 * Code that decides by time takes a `Clock`, so a test can hold it still; code that only waits for
 * something takes `waitFor`, which waits *for* a condition with a limit and never merely sleeps.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Fault } from './fault.ts'

export interface Clock {
  /** Wall time in milliseconds since 1970. May jump. */
  readonly now: () => number
  /** Milliseconds from an arbitrary start. Never goes back; for durations and deadlines. */
  readonly monotonic: () => number
  /** Resolves after `ms`, rejects with kind `aborted` when the signal fires. */
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: async (ms, signal) => {
    try {
      await delay(ms, undefined, signal ? { signal } : {})
    } catch (cause) {
      throw new Fault('aborted', 'interrupted', { cause })
    }
  },
}

export interface WaitOptions {
  readonly what: string
  readonly timeoutMs: number
  readonly everyMs?: number
  readonly signal?: AbortSignal | undefined
  readonly clock?: Clock
}

/**
 * Asks again and again until the answer is neither `undefined` nor `false`, and returns it.
 * Past `timeoutMs` it throws a `timeout` fault that names `what`.
 */
export async function waitFor<T>(
  ask: () => T | undefined | false | Promise<T | undefined | false>,
  options: WaitOptions,
): Promise<T> {
  const { what, timeoutMs, everyMs = 25, signal, clock = systemClock } = options
  const deadline = clock.monotonic() + timeoutMs
  for (;;) {
    signal?.throwIfAborted()
    const answer = await ask()
    if (answer !== undefined && answer !== false) return answer
    if (clock.monotonic() >= deadline) throw new Fault('timeout', `${what}: not within ${timeoutMs / 1000} s`)
    await clock.sleep(everyMs, signal)
  }
}

/** Does it again and again until disposed. For what is done many times a second: to wait anew each time costs ten times as much. */
export function every(ms: number, work: () => void): Disposable {
  const timer = setInterval(work, ms)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** Seconds since 1970, as the API counts time. */
export function seconds(clock: Clock): number {
  return Math.floor(clock.now() / 1000)
}
