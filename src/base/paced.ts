/** A stream held to a pace. */
import { keptRate } from './kept-rate.ts'

/** @param bytesPerSecond absent or 0: as fast as it is taken */
export async function* paced<T extends { readonly length: number }>(
  pieces: AsyncIterable<T>,
  bytesPerSecond: number | undefined,
  signal?: AbortSignal,
): AsyncGenerator<T> {
  const keepRate = keptRate(bytesPerSecond, { signal })
  let bytes = 0
  for await (const piece of pieces) {
    yield piece
    bytes += piece.length
    await keepRate(bytes)
  }
}
