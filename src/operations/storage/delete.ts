/**
 * Destroys a volume: a disk, a file, or a restore point.
 *
 * The volume is set aside, and erased only once the task has succeeded; until then everything can be taken
 * back. A restore point is handed to the backup service, which removes it in one act of its own.
 */
import type { BackupService } from '#backup/service.ts'
import { Fault } from '#base/fault.ts'
import { asVolumeId, type Vmid } from '#base/ids.ts'
import type { StorageService } from '#storage/service.ts'
import { ownerOf, parseVolumeId } from '#storage/volume.ts'
import { operation } from '#tasks/operation.ts'
import { giveBackSpace, marksTo } from '../backup/give-back.ts'
import { ifConfigured, markOf } from './aside.ts'

export type DeleteVolume = {
  readonly volume: string
}

export interface DeleteVolumeDeps {
  readonly storage: Pick<StorageService, 'list' | 'describe' | 'setAside' | 'bringBack' | 'erase'>
  readonly backup: Pick<BackupService, 'remove' | 'collect'>
  readonly guests: {
    readonly exists: (vmid: Vmid) => Promise<boolean>
    readonly config: (vmid: Vmid, kind: 'any') => Promise<{ readonly options: Readonly<Record<string, string>> }>
  }
}

export const deleteVolume = operation<DeleteVolume, DeleteVolumeDeps>('imgdel', {
  id: ({ volume }) => {
    const { storage, name } = parse(volume)
    const owner = ownerOf(name)
    return owner === undefined ? storage : `${owner}@${storage}`
  },
  // A disk must not be attached or its guest started while it goes.
  locks: ({ volume }) => {
    const { name } = parse(volume)
    return name.kind === 'image' || name.kind === 'tree' ? [`guest/${name.vmid}`] : [`volume/${volume}`]
  },
})
  .step('check', {
    async do({ params, deps }) {
      const { name } = parse(params.volume)
      const isInStorage = name.kind !== 'restore-point'
      const facts = isInStorage ? await deps.storage.describe(asVolumeId(params.volume)) : undefined
      if (facts?.protected === true) {
        throw new Fault('conflict', `cannot remove volume '${params.volume}': it is protected`, {
          remedy: 'Remove the protection first.',
        })
      }
      if (name.kind === 'image' || name.kind === 'tree') await requireDetached(deps.guests, name.vmid, params.volume)
    },
    // After success this is the deed itself. After a failure nothing is set aside any more.
    async undo({ params, deps, task }) {
      if (isInDatastore(params.volume)) return
      const erase = () => deps.storage.erase(asVolumeId(params.volume), markOf(task.upid))
      await ifConfigured(deps.storage, parse(params.volume).storage, erase)
    },
    always: true,
  })
  .step('remove', {
    async do({ params, deps, log, task, progress, signal }) {
      const volid = asVolumeId(params.volume)
      if (isInDatastore(volid)) await deps.backup.remove(volid)
      else await deps.storage.setAside(volid, markOf(task.upid))
      log(`Removed volume '${volid}'`)
      const watching = { signal, onProgress: marksTo(progress) }
      if (isInDatastore(volid)) await giveBackSpace(deps.backup, parse(volid).storage, log, watching)
    },
    // A removed restore point does not come back: its removal is one act, and what may be left are its remains.
    async undo({ params, deps, task, log }) {
      if (isInDatastore(params.volume)) return giveBackSpace(deps.backup, parse(params.volume).storage, log)
      const bringBack = () => deps.storage.bringBack(asVolumeId(params.volume), markOf(task.upid))
      await ifConfigured(deps.storage, parse(params.volume).storage, bringBack)
    },
  })

function parse(volume: string) {
  return parseVolumeId(asVolumeId(volume))
}

function isInDatastore(volume: string): boolean {
  return parse(volume).name.kind === 'restore-point'
}

async function requireDetached(guests: DeleteVolumeDeps['guests'], vmid: Vmid, volume: string): Promise<void> {
  if (!(await guests.exists(vmid))) return
  const { options } = await guests.config(vmid, 'any')
  const drive = Object.keys(options).find((key) => options[key]?.split(',').some((part) => namesVolume(part, volume)))
  if (drive === undefined) return
  throw new Fault('conflict', `cannot remove volume '${volume}': it is ${drive} of guest ${vmid}`, {
    remedy: `Detach it first: \`hako vm set ${vmid} --delete ${drive}\`.`,
  })
}

/** Drives are written `local:100/x.raw,size=4G` or `file=local:100/x.raw,…`. */
function namesVolume(part: string, volume: string): boolean {
  return part === volume || part === `file=${volume}` || part === `volume=${volume}`
}
