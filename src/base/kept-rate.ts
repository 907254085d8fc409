/** Keeps work to so many bytes in a second. */
import { type Clock, systemClock } from './clock.ts'

/** Of time that was lost so much is made up for: a stall of minutes is no leave to go at full speed for minutes. */
const madeUpMs = 1_000

/**
 * @param bytesPerSecond absent or 0: no limit
 * @returns to be told of all bytes so far; waits until as many may have gone by
 */
export function keptRate(
  bytesPerSecond: number | undefined,
  {
    clock = systemClock,
    signal,
  }: { readonly clock?: Clock | undefined; readonly signal?: AbortSignal | undefined } = {},
): (allBytes: number) => Promise<void> {
  let [told, dueMs] = [0, clock.monotonic()]
  return async (allBytes) => {
    if (!bytesPerSecond) return
    const nowMs = clock.monotonic()
    dueMs = Math.max(dueMs + ((allBytes - told) / bytesPerSecond) * 1000, nowMs - madeUpMs)
    told = allBytes
    if (dueMs > nowMs) await clock.sleep(dueMs - nowMs, signal)
  }
}
