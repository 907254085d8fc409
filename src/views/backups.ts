/** Backups of every storage in one list, reduced to what the caller may see, and one of them in full. */
import { isFault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { array, boolean, integer, number, object, optional, record, type Static, string } from '#base/schema/schema.ts'
import { newStoredBytesOf } from '#datastore/points/manifest.ts'
import type { ListedBackup } from '#backup/service.ts'
import type { Services } from '#services.ts'
import { holds, type May, toRead } from './volume-access.ts'

export type BackupSources = Pick<Services, 'storage' | 'backup' | 'fileMachines'>

export const backupItem = object({
  volid: string({ description: 'Volume id of the backup.' }),
  vmid: integer({ description: 'Guest it is of.' }),
  name: optional(string({ description: 'Name of the guest then.' })),
  pointInTime: optional(string({ description: 'The moment the data is from.' })),
  size: integer({ description: 'Bytes of data in it, holes left out.' }),
  stored: optional(integer({ description: 'Bytes it added to the datastore.' })),
  protected: optional(boolean({ description: 'Cannot be removed.' })),
  notes: optional(string({ description: 'Notes.' })),
  verified: optional(integer({ description: 'When it was last checked in full, in seconds since 1970.' })),
  hint: optional(string({ description: 'What was unusual about its change.' })),
  damage: optional(string({ description: 'Why it cannot be read, or what the last check found.' })),
})
export type BackupItem = Static<typeof backupItem>

export const backupDetails = object({
  volid: string({ description: 'Volume id of the backup.' }),
  vmid: integer({ description: 'Guest it is of.' }),
  pointInTime: string({ description: 'The moment the data is from.' }),
  finished: integer({ description: 'When it was complete, in seconds since 1970.' }),
  protected: optional(boolean({ description: 'Cannot be removed.' })),
  notes: optional(string({ description: 'Notes.' })),
  disks: array(
    object({
      name: string({ description: 'Drive, such as scsi0.' }),
      size: integer({ description: 'Size in bytes.' }),
      data: integer({ description: 'Bytes of data, holes left out.' }),
      stored: integer({ description: 'Bytes it added to the datastore.' }),
      changed: number({ description: 'Share of its chunks no earlier backup had, 0 to 1.' }),
      digest: string({ description: 'Equal for equal content, in one datastore; made with its key.' }),
    }),
  ),
  trees: array(
    object({
      name: string({ description: 'Mount, such as rootfs.' }),
      entries: integer({ description: 'Files, folders, links and the like.' }),
      files: integer({ description: 'Files among them.' }),
      data: integer({ description: 'Bytes of data, holes left out.' }),
      stored: integer({ description: 'Bytes it added to the datastore.' }),
      digest: string({ description: 'Equal for equal files, in one datastore; made with its key.' }),
    }),
  ),
  facts: record({ description: 'How it was made: mode, freeze and its duration, what was left out.' }),
})

/** Newest first. */
export async function visibleBackups(
  { storage, backup }: BackupSources,
  query: { readonly storage?: string | undefined; readonly vmid?: number | undefined },
  may: May,
): Promise<BackupItem[]> {
  const found: ListedBackup[] = []
  for (const { name, content } of await storage.list()) {
    if (!content.includes('backup') || (query.storage !== undefined && query.storage !== name)) continue
    try {
      found.push(...(await backup.list({ storage: name, vmid: query.vmid })))
    } catch (cause) {
      // A storage that is not there now must not hide the others, unless it is the one asked for.
      if (!isFault(cause, 'unavailable') || query.storage !== undefined) throw cause
    }
  }
  const shown: BackupItem[] = []
  for (const one of found.toSorted((a, b) => b.ctime - a.ctime)) {
    if (await holds(toRead(one.volid), may)) shown.push(itemOf(one))
  }
  return shown
}

/** @throws Fault `missing`, `damaged` */
export async function backupFacts({ backup }: BackupSources, volid: VolumeId): Promise<Static<typeof backupDetails>> {
  const { manifest, vmid, notes, protected: isProtected } = await backup.describe(volid)
  return {
    volid,
    vmid,
    pointInTime: manifest.pointInTime,
    finished: manifest.finished,
    protected: isProtected,
    notes,
    disks: manifest.disks.map((disk) => ({
      name: disk.name,
      size: disk.sizeBytes,
      data: disk.dataBytes,
      stored: disk.newStoredBytes,
      changed: disk.chunks === 0 ? 0 : disk.newChunks / disk.chunks,
      digest: disk.digest,
    })),
    trees: manifest.trees.map(({ name, entries, files, dataBytes, newStoredBytes, digest }) => ({
      name,
      entries,
      files,
      data: dataBytes,
      stored: newStoredBytes,
      digest,
    })),
    facts: manifest.facts,
  }
}

function itemOf({
  volid,
  vmid,
  sizeBytes,
  notes,
  protected: isProtected,
  verified,
  hint,
  damage,
  manifest,
}: ListedBackup): BackupItem {
  const name = manifest?.facts.name
  return {
    volid,
    vmid,
    name: typeof name === 'string' ? name : undefined,
    pointInTime: manifest?.pointInTime,
    size: sizeBytes,
    stored: manifest && newStoredBytesOf(manifest),
    protected: isProtected,
    notes,
    verified,
    hint,
    damage,
  }
}
