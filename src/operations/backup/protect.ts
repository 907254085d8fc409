/** How many backups of a guest may be protected: what is protected is never pruned, and fills its storage. */
import type { BackupService, GuestBackupType } from '#backup/service.ts'
import { Fault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { parseVolumeId } from '#storage/volume.ts'
import type { StorageService } from '#storage/service.ts'

export interface ProtectDeps {
  readonly storage: Pick<StorageService, 'get'>
  readonly backup: Pick<BackupService, 'list'>
}

/** For callers who do not own the storage, where it says nothing. */
export const usualMost = 5
export const unlimited = -1

interface BackupPlace {
  readonly storage: string
  readonly vmid: number
  readonly type?: GuestBackupType | undefined
  /** Does not count: it is the one to be protected. */
  readonly besides?: string
}

/** @throws Fault `invalid` for any other volume */
export function backupAt(volid: VolumeId): BackupPlace {
  const { storage, name } = parseVolumeId(volid)
  if (name.kind === 'restore-point') {
    return { storage, vmid: name.vmid, type: name.id.startsWith('ct/') ? 'ct' : 'vm', besides: volid }
  }
  throw new Fault('invalid', `volume '${volid}' is no backup of this node's making, and cannot be protected`)
}

/**
 * @param most where the storage says nothing; -1 is no limit
 * @throws Fault `conflict` when the guest has as many protected backups as it may
 */
export async function requireProtectable(
  { storage, backup }: ProtectDeps,
  { storage: name, vmid, type, besides }: BackupPlace,
  most: number,
): Promise<void> {
  const { maxProtectedBackups: limit = most } = await storage.get(name)
  if (limit === unlimited) return
  const backups = (await backup.list({ storage: name, vmid, type })).filter((one) => one.protected === true)
  if (backups.filter(({ volid }) => volid !== besides).length < limit) return
  throw new Fault(
    'conflict',
    `the number of protected backups of guest ${vmid} is limited to ${limit} on storage '${name}'`,
    {
      remedy: `Take the protection from one: \`hako backup set ${name} VOLUME --protected 0\`.`,
    },
  )
}
