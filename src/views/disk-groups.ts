/** What disks of a node were made into, as clients read it. */
import { array, boolean, integer, number, object, optional, string } from '#base/schema/schema.ts'
import type { Host } from '#host/host.ts'
import { physicalVolumes, thinPools, volumeGroups } from '#host/disks/lvm.ts'
import { zfsPools } from '#host/disks/zfs.ts'

const name = string({ description: 'Name.' })
const size = integer({ description: 'Bytes.' })
const free = integer({ description: 'Bytes that are free.' })
const leaf = boolean({ description: 'There is nothing below.' })

export const groupTree = object({
  leaf,
  children: array(
    object({
      name,
      size,
      free,
      leaf,
      children: optional(array(object({ name, size, free, leaf }))),
    }),
  ),
})

export async function groupsOf(host: Host) {
  const devices = await physicalVolumes(host)
  const groups = await volumeGroups(host)
  return {
    leaf: false,
    children: groups.map((group) => ({
      name: group.name,
      size: group.sizeBytes,
      free: group.freeBytes,
      leaf: false,
      children: devices
        .filter((volume) => volume.group === group.name)
        .map(({ device, sizeBytes, freeBytes }) => ({ name: device, size: sizeBytes, free: freeBytes, leaf: true })),
    })),
  }
}

export const thinPoolItem = object({
  lv: string({ description: 'Name of the pool.' }),
  vg: string({ description: 'Volume group it is in.' }),
  lv_size: size,
  used: integer({ description: 'Bytes that hold data.' }),
  metadata_size: integer({ description: 'Bytes for what is where.' }),
  metadata_used: integer({ description: 'Bytes of them in use.' }),
})

export async function thinPoolsOf(host: Host) {
  return (await thinPools(host)).map((pool) => ({
    lv: pool.name,
    vg: pool.group,
    lv_size: pool.sizeBytes,
    used: pool.usedBytes,
    metadata_size: pool.metadataBytes,
    metadata_used: pool.metadataUsedBytes,
  }))
}

export const zfsPoolItem = object({
  name,
  size,
  alloc: integer({ description: 'Bytes in use.' }),
  free,
  frag: integer({ description: 'Percent of the free space that is in pieces.' }),
  dedup: number({ description: 'How many times data is found on average.' }),
  health: string({ description: 'State: ONLINE, DEGRADED, …' }),
})

export async function zfsPoolsOf(host: Host) {
  return (await zfsPools(host)).map(({ name, sizeBytes, usedBytes, freeBytes, fragmentation, dedup, health }) => ({
    name,
    size: sizeBytes,
    alloc: usedBytes,
    free: freeBytes,
    frag: fragmentation,
    dedup,
    health,
  }))
}
