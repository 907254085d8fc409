/**
 * The space of backups that were removed, and of what a process that died was writing into a datastore.
 *
 * The daemon looks after it now and then anyway (`loops/garbage.ts`); but a disk may be full of it until then.
 */
import { isFault } from '#base/fault.ts'
import type { Mark } from '#base/pace.ts'
import type { BackupService } from '#backup/service.ts'
import type { Watching } from '#datastore/collect/watched.ts'

/** Tells a task how far what it does is. */
export function marksTo(progress: (phase: string, fraction?: number, bytes?: number) => void): (mark: Mark) => void {
  return ({ phase, fraction, bytes }) => progress(phase, fraction, bytes)
}

/** What cannot be done now is said, and no reason to undo no more. */
export async function giveBackSpace(
  backup: Pick<BackupService, 'collect'>,
  storage: string,
  log: (line: string) => void,
  watching: Watching = {},
): Promise<void> {
  try {
    const { waitsFor } = await backup.collect(storage, watching)
    if (waitsFor !== undefined) log(`space on storage '${storage}' comes back later: it waits for ${waitsFor}`)
  } catch (fault) {
    if (!isFault(fault)) throw fault
    // Nobody has written there yet.
    if (fault.kind === 'missing') return
    log(`space on storage '${storage}' is not given back yet: ${fault.message}`)
  }
}
