/**
 * What a driver does for its kind of guest. The guest service decides, and writes down; a driver acts on the machine.
 *
 * What a start makes is covered by a run record from before it is made until after it is gone, whatever the kind.
 */
import type { Vmid } from '#base/ids.ts'
import type { Errors } from '#base/schema/check.ts'
import type { Options } from './config.ts'
import type { StartOptions } from './guest.ts'

export interface GuestDriver {
  /** Directory of its sockets and logs. */
  readonly runDirOf: (vmid: Vmid) => string
  /** Its control group, below each controller. */
  readonly groupOf: (vmid: Vmid) => string
  /** Returns once it runs. On failure, and on abort, nothing remains. @throws Fault `conflict` when it runs already */
  readonly start: (vmid: Vmid, options: Options, how?: StartOptions) => Promise<void>
  /** Pulls the plug and cleans up. @throws Fault `conflict` 'VM 100 not running' */
  readonly stop: (vmid: Vmid) => Promise<void>
  /**
   * Makes of the running guest what is wanted, as far as that goes without a restart.
   * @returns the options it failed at, each with the reason; they stay as they were
   */
  readonly changeLive: (
    vmid: Vmid,
    wanted: Options,
    how?: { readonly signal?: AbortSignal; readonly log?: (line: string) => void },
  ) => Promise<Errors>
  /** Removes what a guest that no longer runs left behind. True when there was something. */
  readonly reap: (vmid: Vmid, how?: { readonly waits?: boolean }) => Promise<boolean>
  /** Removes the logs a stopped guest left, when the guest itself goes. */
  readonly forget: (vmid: Vmid) => Promise<void>
  /** Keeps the logs of a running guest within their bound. */
  readonly boundLogs: (vmid: Vmid) => Promise<void>
}
