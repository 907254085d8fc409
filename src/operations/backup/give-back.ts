/**
 * For undos: the space of what a process that died was writing into a datastore, or removing from it.
 *
 * Whoever opens a datastore next gives that back anyway; but who knows when that is, and a disk may be full
 * of it until then.
 */
import { isFault } from '#base/fault.ts'
import type { BackupService } from '#backup/service.ts'

/** What cannot be done now is said, and no reason to undo no more. */
export async function giveBackSpace(
  backup: Pick<BackupService, 'sweep'>,
  storage: string,
  log: (line: string) => void,
): Promise<void> {
  try {
    await backup.sweep(storage)
  } catch (fault) {
    if (!isFault(fault)) throw fault
    // Nobody has written there yet.
    if (fault.kind === 'missing') return
    log(`space on storage '${storage}' is not given back yet: ${fault.message}`)
  }
}
