/** Why a thing is not ours to read: it is somebody else's, which is a verdict on it, or we are refused it, which is none. */
import { Fault, type FaultDetails, isFault } from '#base/fault.ts'

/** What is there is not of this datastore, as its signature or seal says. */
export class ForeignFault extends Fault {
  constructor(message: string, details?: FaultDetails) {
    super('denied', message, details)
  }
}

/** Access is refused: whether what is there is whole nobody knows. */
export function isRefused(fault: unknown): fault is Fault {
  return isFault(fault, 'denied') && !(fault instanceof ForeignFault)
}
