/** What operations on volumes share: the mark under which they keep things out of sight, and its end. */
import { createHash } from 'node:crypto'
import type { StorageService } from '#storage/service.ts'

/** The same in every process that works on this task, and short enough for a file's name. */
export function markOf(upid: string): string {
  return createHash('sha256').update(upid).digest('hex').slice(0, 16)
}

/**
 * For undos: a storage whose configuration was removed meanwhile (or never was) holds nothing we could put
 * right. One that is only away still does, and the undo must fail and be tried again.
 */
export async function ifConfigured(
  storages: Pick<StorageService, 'list'>,
  name: string,
  act: () => Promise<void>,
): Promise<void> {
  if ((await storages.list()).some((storage) => storage.name === name)) await act()
}
