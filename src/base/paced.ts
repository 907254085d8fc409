/** A stream held to a pace. */
import { systemClock } from './clock.ts'

/** @param bytesPerSecond absent or 0: as fast as it is taken */
export async function* paced<T extends { readonly length: number }>(
  pieces: AsyncIterable<T>,
  bytesPerSecond: number | undefined,
  signal?: AbortSignal,
): AsyncGenerator<T> {
  const startedMs = systemClock.monotonic()
  let bytes = 0
  for await (const piece of pieces) {
    yield piece
    bytes += piece.length
    const aheadMs = bytesPerSecond ? (bytes / bytesPerSecond) * 1000 - (systemClock.monotonic() - startedMs) : 0
    if (aheadMs > 0) await systemClock.sleep(aheadMs, signal)
  }
}
