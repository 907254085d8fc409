/** What operations on volumes share: the mark under which they keep things out of sight, and its end. */
import { createHash } from 'node:crypto'
import { isFault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { splitVolumeId } from '#base/ids.ts'
import type { StorageService } from '#storage/service.ts'

/** The same in every process that works on this task, and short enough for a file's name. */
export function markOf(upid: string): string {
  return createHash('sha256').update(upid).digest('hex').slice(0, 16)
}

/** Where the volume is, or nothing when there is none. */
export async function pathOf(storages: Pick<StorageService, 'location'>, volid: VolumeId): Promise<string | undefined> {
  try {
    return (await storages.location(volid)).path
  } catch (cause) {
    if (isFault(cause, 'missing')) return undefined
    throw cause
  }
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

/** Makes true that this task staged nothing under the name. */
export async function discardStaging(
  storages: Pick<StorageService, 'list' | 'discardStaged' | 'sweep'>,
  volid: VolumeId,
  upid: string,
): Promise<void> {
  await ifConfigured(storages, splitVolumeId(volid).storage, () => storages.discardStaged(volid, markOf(upid)))
  // What a worker was writing when it was killed bears no mark yet.
  await storages.sweep()
}

/** Makes true that this task published nothing: what had the name before has it again. */
export async function withdrawPublished(
  storages: Pick<StorageService, 'list' | 'withdrawFile'>,
  volid: VolumeId,
  upid: string,
  identity: string | undefined,
): Promise<void> {
  // Nothing was staged, so nothing can have been published.
  if (identity === undefined) return
  const withdraw = () => storages.withdrawFile(volid, markOf(upid), identity)
  await ifConfigured(storages, splitVolumeId(volid).storage, withdraw)
}
