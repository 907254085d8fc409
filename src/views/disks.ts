/** Disks of a node as clients read them. */
import { array, boolean, integer, object, optional, string, type Static } from '#base/schema/schema.ts'
import { type BlockDevice, blockDevices, smartReport, stableNames } from '#host/disks/block-devices.ts'
import type { Host } from '#host/host.ts'

export const diskItem = object({
  devpath: string({ description: 'Path of the device.' }),
  'by-id-link': optional(string({ description: 'Path that stays the same in whatever order disks are found.' })),
  parent: optional(string({ description: 'Disk a partition is on.' })),
  type: string({ description: 'hdd, ssd, nvme, usb, partition or unknown.' }),
  size: integer({ description: 'Bytes.' }),
  gpt: boolean({ description: 'It has a GUID partition table.' }),
  mounted: boolean({ description: 'A file system on it is in use.' }),
  used: optional(string({ description: 'What it is used for.' })),
  osdid: integer({ description: 'Ceph OSD on it; -1 for none.' }),
  'osdid-list': optional(array(integer({ description: 'Ceph OSD on it.' }))),
  vendor: optional(string({ description: 'Vendor.' })),
  model: optional(string({ description: 'Model.' })),
  serial: optional(string({ description: 'Serial number.' })),
  wwn: optional(string({ description: 'World wide name.' })),
  health: optional(string({ description: 'PASSED, FAILED, OK or UNKNOWN.' })),
})
export const diskItems = array(diskItem)

export interface DiskQuery {
  readonly withPartitions: boolean
  /** Only disks nothing is on, or which can hold a journal: unused ones and those with a GUID partition table. */
  readonly type?: 'unused' | 'journal_disks' | undefined
  readonly withHealth: boolean
}

/** Device-mapper targets, loop devices, RAM disks and empty drives are no disks one can use. */
const noDisk = /^\/dev\/(?:loop|zram|ram|sr|fd|dm-|nbd|rbd|md)/

export async function diskList(host: Host, query: DiskQuery): Promise<Static<typeof diskItems>> {
  const names = await stableNames()
  const disks = (await blockDevices(host)).filter(
    ({ path, type, sizeBytes }) => type === 'disk' && sizeBytes > 0 && !noDisk.test(path),
  )
  const items: Static<typeof diskItems> = []
  for (const disk of disks) {
    const item = itemOf(disk, names)
    if (query.type !== undefined && item.used !== undefined && !(query.type === 'journal_disks' && item.gpt)) continue
    items.push({ ...item, ...(query.withHealth ? { health: await healthOf(host, disk.path) } : {}) })
    if (query.withPartitions) items.push(...partitionsOf(disk, names))
  }
  return items
}

/** Without the tool, or for a virtual disk that knows nothing of itself, health is unknown; the list is not withheld for it. */
async function healthOf(host: Host, path: string): Promise<string> {
  return smartReport(host, path, true).then(
    ({ health }) => health,
    () => 'UNKNOWN',
  )
}

function itemOf(disk: BlockDevice, names: ReadonlyMap<string, string>): Static<typeof diskItem> {
  const { path, vendor, model, serial, wwn } = disk
  const [link, used] = [names.get(path), useOf(disk)]
  return {
    devpath: path,
    ...(link === undefined ? {} : { 'by-id-link': link }),
    type: kindOf(disk),
    size: disk.sizeBytes,
    gpt: disk.partitionTable === 'gpt',
    mounted: isMounted(disk),
    ...(used === undefined ? {} : { used }),
    osdid: -1,
    'osdid-list': [],
    vendor: vendor ?? 'unknown',
    model: model ?? 'unknown',
    serial: serial ?? 'unknown',
    wwn: wwn ?? 'unknown',
  }
}

function partitionsOf(disk: BlockDevice, names: ReadonlyMap<string, string>): Static<typeof diskItems> {
  return disk.children
    .filter(({ type }) => type === 'part')
    .map((part) => {
      const used = useOf(part)
      const link = names.get(part.path)
      return {
        devpath: part.path,
        ...(link === undefined ? {} : { 'by-id-link': link }),
        parent: disk.path,
        type: 'partition',
        size: part.sizeBytes,
        gpt: disk.partitionTable === 'gpt',
        mounted: isMounted(part),
        ...(used === undefined ? {} : { used }),
        osdid: -1,
        'osdid-list': [],
      }
    })
}

function kindOf({ path, isRotational, transport }: BlockDevice): string {
  if (path.startsWith('/dev/nvme')) return 'nvme'
  if (transport === 'usb') return 'usb'
  // What a hypervisor says of a virtual disk's rotation is made up.
  if (path.startsWith('/dev/vd')) return 'unknown'
  return isRotational ? 'hdd' : 'ssd'
}

function isMounted({ mountPoints, children }: BlockDevice): boolean {
  return mountPoints.length > 0 || children.some(isMounted)
}

/** What it is used for, in the words clients know; nothing for a disk one may take. */
function useOf({ fileSystem, mountPoints, partitionTable, partitionType, children }: BlockDevice): string | undefined {
  if (fileSystem === 'LVM2_member') return 'LVM'
  if (fileSystem === 'zfs_member') return 'ZFS'
  if (fileSystem === 'crypto_LUKS') return 'LUKS'
  if (fileSystem === 'linux_raid_member') return 'Linux RAID'
  if (mountPoints.length > 0) return 'mounted'
  if (partitionType === '21686148-6449-6e6f-744e-656564454649') return 'BIOS boot'
  if (partitionType === 'c12a7328-f81f-11d2-ba4b-00c93ec93b40') return 'EFI'
  const below = children.map(useOf).find((use) => use !== undefined)
  if (below !== undefined) return below
  if (fileSystem !== undefined) return fileSystem
  return partitionTable === undefined && children.length === 0 ? undefined : 'partitions'
}
