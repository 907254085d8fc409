/** What only a node may do that has its machine to itself: switch it off, stop its services. */
import { Fault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { isSystemdRunning } from '#host/system/systemd.ts'

export interface Ownership {
  /** Stands for `/`; absent where the machine is shared. */
  readonly machineRoot?: string
}

/** @throws Fault `conflict` for a lab, a node under test, or any other that shares its machine */
export function requireWholeMachine({ machineRoot }: Ownership, what: string): void {
  if (machineRoot === '/') return
  throw new Fault('conflict', `${what} belongs to the machine, which this node shares with others`, {
    remedy: 'Do it on the machine itself.',
  })
}

/** Guests get the chance to shut down from whoever keeps the daemon. */
export async function powerMachine(host: Host, node: Ownership, command: 'reboot' | 'shutdown'): Promise<void> {
  requireWholeMachine(node, 'its power switch')
  if (await isSystemdRunning()) {
    await host.run(['systemctl', command === 'reboot' ? 'reboot' : 'poweroff'])
  } else {
    await host.run(['shutdown', command === 'reboot' ? '-r' : '-h', 'now'])
  }
}
