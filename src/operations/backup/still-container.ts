/**
 * Holds a container still for a moment: all its processes halt, and nothing changes in its files meanwhile.
 *
 * That it was this task that halted it is written beside the run record before it is done. So whoever cleans up after a
 * crash lets go on what a backup halted, and nothing that a person did.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import type { Vmid } from '#base/ids.ts'
import type { GuestService } from '#guests/service.ts'
import { readIfPresent } from '#host/files.ts'

type Guests = Pick<GuestService, 'isPaused' | 'suspend' | 'resume' | 'isRunning' | 'runDirOf'>

const markOf = (guests: Guests, vmid: Vmid) => join(guests.runDirOf(vmid), 'held-still')

/** The container goes on whatever happens; one that was suspended before stays so, and was held for no time. */
export async function whileStill<T>(
  { guests, clock }: { readonly guests: Guests; readonly clock: Clock },
  vmid: Vmid,
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly heldMs: number }> {
  if (await guests.isPaused(vmid)) return { result: await work(), heldMs: 0 }
  await writeFile(markOf(guests, vmid), '', { mode: 0o600 })
  const startedMs = clock.monotonic()
  let result: T
  try {
    await guests.suspend(vmid)
    result = await work()
  } finally {
    await letGoOn(guests, vmid)
  }
  return { result, heldMs: Math.round(clock.monotonic() - startedMs) }
}

/** Lets go on a container that was held still here, by this process or one that died. Harmless for any other. */
export async function letGoOn(guests: Guests, vmid: Vmid): Promise<void> {
  if ((await readIfPresent(markOf(guests, vmid))) === undefined) return
  if (await guests.isRunning(vmid)) await guests.resume(vmid)
  await rm(markOf(guests, vmid), { force: true })
}
