/** Who may only read a datastore still says what they saw in it; that they could write none of it down is said besides. */
import { Fault, isFault } from '#base/fault.ts'

export interface Onlooker {
  /** Told each time something that was seen is not written down, because only others may. */
  readonly onUnwritten?: ((fault: Fault) => void) | undefined
}

export async function ifAllowed({ onUnwritten }: Onlooker, act: () => Promise<unknown>): Promise<void> {
  try {
    await act()
  } catch (fault) {
    if (!(fault instanceof Fault) || !isFault(fault, 'denied')) throw fault
    onUnwritten?.(fault)
  }
}
