/** A network fails now and then: what may come right by itself is tried again, some times, further and further apart. */
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'

export interface Patience {
  readonly clock: Clock
  readonly random: Random
  /** How often at most; 5 when absent. */
  readonly attempts?: number | undefined
  /** Before the second attempt; each further wait is twice as long. 250 when absent. */
  readonly firstWaitMs?: number | undefined
}

const longestWaitMs = 10_000

/** @throws the last fault, with how often it was tried; at once for what will not come right by itself */
export async function again<T>(
  { clock, random, attempts = 5, firstWaitMs = 250 }: Patience,
  act: (attempt: number) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await act(attempt)
    } catch (fault) {
      if (!isFault(fault, 'unavailable') && !isFault(fault, 'timeout')) throw fault
      if (attempt >= attempts) throw tired(fault, attempts)
      // Not all at the same moment, where many wait for one server.
      const share = 0.5 + (random.bytes(1)[0] ?? 0) / 512
      await clock.sleep(Math.min(longestWaitMs, firstWaitMs * 2 ** (attempt - 1)) * share)
    }
  }
}

function tired(fault: Fault, attempts: number): Fault {
  const { message, remedy, cause } = fault
  return new Fault(fault.kind, `${message} (tried ${attempts} times)`, {
    cause,
    ...(remedy !== undefined && { remedy }),
  })
}
