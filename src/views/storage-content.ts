/**
 * What lies in a storage: volumes of the storage service and restore points of the backup service in one
 * list, reduced to what the caller may see.
 */
import { missing } from '#base/fault.ts'
import { asVmid, type VolumeId } from '#base/ids.ts'
import { type Static, boolean, enumOf, integer, object, optional, string } from '#base/schema/schema.ts'
import type { StorageService } from '#storage/service.ts'
import { archiveKind, type ContentType, parseVolumeId, type VolumeInfo } from '#storage/volume.ts'
import { holds, type May, toRead } from './volume-access.ts'

/** One restore point, as the backup service lists it. */
export interface RestorePoint {
  readonly volid: VolumeId
  readonly type: 'vm' | 'ct'
  readonly vmid: number
  /** Seconds since 1970. */
  readonly ctime: number
  readonly sizeBytes: number
  readonly notes?: string | undefined
  readonly protected?: boolean | undefined
}

export interface ContentSources {
  readonly guests: { readonly containers: () => Promise<ReadonlySet<number>> }
  readonly storage: Pick<StorageService, 'get' | 'content' | 'describe' | 'location'>
  readonly backup: {
    readonly list: (filter: { storage: string; vmid?: number }) => Promise<readonly RestorePoint[]>
  }
}

export interface ContentQuery {
  readonly storage: string
  readonly content?: ContentType | undefined
  readonly vmid?: number | undefined
}

export const contentItem = object({
  volid: string({ description: 'Volume, as `storage:name`.' }),
  content: string({ description: 'What it is: images, iso, backup, …' }),
  format: string({ description: 'Its form: raw, qcow2, iso, hako-vm, …' }),
  subtype: optional(enumOf(['qemu', 'lxc'], { description: 'Of backups: the kind of guest.' })),
  size: integer({ description: 'Size in bytes.' }),
  used: optional(integer({ description: 'Bytes it takes on the storage.' })),
  vmid: optional(integer({ description: 'Guest it belongs to.' })),
  ctime: optional(integer({ description: 'When it was made, in seconds since 1970.' })),
  parent: optional(string({ description: 'Volume it is based on.' })),
  notes: optional(string({ description: 'Notes.' })),
  protected: optional(boolean({ description: 'Cannot be removed.' })),
})
export type ContentItem = Static<typeof contentItem>

/** Sorted by content and name; backups by guest and time. */
export async function storageContent(sources: ContentSources, query: ContentQuery, may: May): Promise<ContentItem[]> {
  const { storage, content } = query
  const vmid = query.vmid === undefined ? undefined : asVmid(query.vmid)
  const volumes = await volumesIn(sources, query)
  const isWithBackups = (await sources.storage.get(storage)).content.includes('backup')
  const wantsBackups = isWithBackups && (content === undefined || content === 'backup')
  const filter = { storage, ...(vmid === undefined ? {} : { vmid }) }
  const points = wantsBackups ? (await sources.backup.list(filter)).map(pointItem) : []
  const shown = await visible([...volumes, ...points], may)
  return shown.toSorted((a, b) => a.content.localeCompare(b.content) || (a.volid < b.volid ? -1 : 1))
}

/** An image is what its guest makes of it: a disk, or files of a container. */
async function volumesIn(sources: ContentSources, { storage, content, vmid }: ContentQuery): Promise<ContentItem[]> {
  const filter = { content, vmid: vmid === undefined ? undefined : asVmid(vmid) }
  const items = (await sources.storage.content(storage, filter)).map(volumeItem)
  const containers = await sources.guests.containers()
  const isContainers = (item: ContentItem) =>
    item.content === 'images' && item.vmid !== undefined && containers.has(item.vmid)
  const told = items.map((item) => (isContainers(item) ? { ...item, content: 'rootdir' } : item))
  return content === undefined ? told : told.filter((item) => item.content === content)
}

export const volumeDetails = object({
  path: string({ description: 'Where it is on the node.' }),
  format: string({ description: 'Its form.' }),
  size: integer({ description: 'Size in bytes.' }),
  used: integer({ description: 'Bytes it takes on the storage.' }),
  notes: optional(string({ description: 'Notes.' })),
  protected: optional(boolean({ description: 'Cannot be removed.' })),
})

/** @throws Fault `missing` */
export async function volumeFacts(sources: ContentSources, volid: VolumeId): Promise<Static<typeof volumeDetails>> {
  const { storage, name } = parseVolumeId(volid)
  if (name.kind === 'restore-point') {
    const points = await sources.backup.list({ storage, vmid: name.vmid })
    const point = points.find((one) => one.volid === volid)
    if (!point) throw missing('volume', volid)
    const { format, size, notes, protected: isProtected } = pointItem(point)
    return { path: name.id, format, size, used: size, notes, protected: isProtected }
  }
  const { path } = await sources.storage.location(volid)
  const { format, size, used, notes, protected: isProtected } = volumeItem(await sources.storage.describe(volid))
  return { path, format, size, used: used ?? size, notes, protected: isProtected }
}

function volumeItem({
  volid,
  content,
  format,
  sizeBytes,
  usedBytes,
  vmid,
  ctime,
  parent,
  notes,
  protected: isProtected,
}: VolumeInfo): ContentItem {
  const subtype = archiveKind(volid)
  const facts = { subtype, vmid, ctime, parent, notes, protected: isProtected }
  return { volid, content, format, size: sizeBytes, used: usedBytes, ...facts }
}

function pointItem({ volid, type, vmid, ctime, sizeBytes, notes, protected: isProtected }: RestorePoint): ContentItem {
  const facts = { format: `hako-${type}`, subtype: kindOf[type], size: sizeBytes, vmid, ctime }
  return { volid, content: 'backup', ...facts, notes, protected: isProtected }
}

const kindOf = { vm: 'qemu', ct: 'lxc' } as const

/** What pruning would do with each backup, of those the caller may see. */
export function visibleMarks(
  backups: readonly (Pick<RestorePoint, 'volid' | 'type' | 'vmid' | 'ctime'> & {
    readonly mark: 'keep' | 'remove' | 'protected'
  })[],
  may: May,
) {
  const items = backups.map(({ volid, vmid, type, ctime, mark }) => ({ volid, vmid, type: kindOf[type], ctime, mark }))
  return visible(items, may)
}

/** Rights are asked for once per guest and kind, not once per volume. */
async function visible<T extends { readonly volid: string }>(items: readonly T[], may: May): Promise<T[]> {
  const asked = new Map<string, Promise<boolean>>()
  const answer = (path: string, ...privileges: readonly string[]) => {
    const key = `${path} ${privileges.join(' ')}`
    const known = asked.get(key) ?? may(path, ...privileges)
    asked.set(key, known)
    return known
  }
  const shown: T[] = []
  for (const item of items) {
    if (await holds(toRead(item.volid as VolumeId), answer)) shown.push(item)
  }
  return shown
}
