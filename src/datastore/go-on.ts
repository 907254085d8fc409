/** Long work asks between its steps whether it is still wanted. */
import { Fault } from '#base/fault.ts'

/** @throws Fault `aborted` when somebody asked for an end */
export function goOn(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new Fault('aborted', 'it was interrupted')
}
