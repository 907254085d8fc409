/**
 * Who may see or use one volume of a storage. A plain value, so that a single endpoint can state it as its
 * permission and a list can filter by it.
 */
import { contentOf, ownerOf, parseVolumeId, type VolumeName } from '#storage/volume.ts'
import type { VolumeId } from '#base/ids.ts'

/** All privileges of one alternative must be held; one alternative is enough. */
export type Alternatives = readonly (readonly { readonly path: string; readonly privilege: string }[])[]
/** Whether the caller holds all these privileges on the path. */
export type May = (path: string, ...privileges: readonly string[]) => Promise<boolean>

export function toRead(volid: VolumeId): Alternatives {
  const { storage, name } = parseVolumeId(volid)
  const on = (privilege: string) => ({ path: `/storage/${storage}`, privilege })
  return [[on('Datastore.Allocate')], ...readersOf(name, on)]
}

/** Removing, and changing notes and protection. */
export function toChange(volid: VolumeId): Alternatives {
  const { storage, name } = parseVolumeId(volid)
  const on = (privilege: string) => ({ path: `/storage/${storage}`, privilege })
  return [[on('Datastore.Allocate')], ...backupOwner(name, on)]
}

export async function holds(alternatives: Alternatives, may: May): Promise<boolean> {
  for (const alternative of alternatives) {
    const held = await Promise.all(alternative.map(({ path, privilege }) => may(path, privilege)))
    if (held.every(Boolean)) return true
  }
  return false
}

type On = (privilege: string) => Alternatives[number][number]

function readersOf(name: VolumeName, on: On): Alternatives {
  switch (name.kind) {
    case 'image':
    case 'tree':
      return [[{ path: `/vms/${name.vmid}`, privilege: 'VM.Config.Disk' }]]
    case 'restore-point':
      return backupOwner(name, on)
    case 'member':
      return [[on('Datastore.Audit')], [on('Datastore.AllocateSpace')]]
    case 'file':
      // Snippets hold passwords and keys as often as not.
      if (name.content === 'snippets') return []
      if (name.content === 'backup') return backupOwner(name, on)
      return [[on('Datastore.Audit')], [on('Datastore.AllocateSpace')]]
    default:
      return name satisfies never
  }
}

function backupOwner(name: VolumeName, on: On): Alternatives {
  const owner = contentOf(name) === 'backup' ? ownerOf(name) : undefined
  return owner === undefined ? [] : [[on('Datastore.AllocateSpace'), { path: `/vms/${owner}`, privilege: 'VM.Backup' }]]
}
