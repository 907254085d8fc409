/**
 * Holds a container still for a moment: none of its processes runs, and nothing changes in its files meanwhile.
 *
 * That this is done, and whether it was suspended before, is written beside the run record first. So whoever cleans up
 * after a crash lets go on what a backup held, and nothing that a person has suspended.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Vmid } from '#base/ids.ts'
import type { GuestService } from '#guests/service.ts'
import { readIfPresent } from '#host/files.ts'

const suspended = 'suspended'
const markOf = (guests: GuestService, vmid: Vmid) => join(guests.runDirOf(vmid), 'held-still')

/** Afterwards it is as it was, whatever happens. @returns also for how long it was held */
export async function whileStill<T>(
  guests: GuestService,
  vmid: Vmid,
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly heldMs: number }> {
  const isSuspended = await guests.isPaused(vmid)
  await writeFile(markOf(guests, vmid), isSuspended ? suspended : '', { mode: 0o600 })
  try {
    return await guests.whileHeld(vmid, work)
  } finally {
    await letGoOn(guests, vmid)
  }
}

/** Lets go on a container that was held still, by this process or one that died. Harmless for any other. */
export async function letGoOn(guests: GuestService, vmid: Vmid): Promise<void> {
  const mark = await readIfPresent(markOf(guests, vmid))
  if (mark === undefined) return
  await guests.letGo(vmid, { isSuspended: mark === suspended })
  await rm(markOf(guests, vmid), { force: true })
}
