/**
 * Volume groups and thin pools, by LVM's own tools and their JSON.
 *
 * Sizes are asked for in bytes. Copies of the metadata are left to whoever changes volumes later (`backup=0`):
 * what is made here is empty and can be made again.
 */
import type { Host } from '../host.ts'
import { runTool } from '../tool.ts'

export interface VolumeGroup {
  readonly name: string
  readonly sizeBytes: number
  readonly freeBytes: number
  readonly volumeCount: number
}

export interface PhysicalVolume {
  readonly device: string
  /** Absent: made for LVM and in no group yet. */
  readonly group: string | undefined
  readonly sizeBytes: number
  readonly freeBytes: number
}

export interface ThinPool {
  readonly name: string
  readonly group: string
  readonly sizeBytes: number
  readonly usedBytes: number
  readonly metadataBytes: number
  readonly metadataUsedBytes: number
}

const asJson = ['--reportformat', 'json', '--units', 'b', '--nosuffix'] as const
const noCopies = ['--config', 'backup{backup=0 archive=0}'] as const

export async function volumeGroups(host: Host): Promise<VolumeGroup[]> {
  const { stdout } = await runTool(host, ['vgs', ...asJson, '-o', 'vg_name,vg_size,vg_free,lv_count'])
  return rowsOf(stdout, 'vg').map((row) => ({
    name: row.vg_name ?? '',
    sizeBytes: Number(row.vg_size),
    freeBytes: Number(row.vg_free),
    volumeCount: Number(row.lv_count),
  }))
}

export async function physicalVolumes(host: Host): Promise<PhysicalVolume[]> {
  const { stdout } = await runTool(host, ['pvs', ...asJson, '-o', 'pv_name,vg_name,pv_size,pv_free'])
  return rowsOf(stdout, 'pv').map((row) => ({
    device: row.pv_name ?? '',
    group: row.vg_name === '' ? undefined : row.vg_name,
    sizeBytes: Number(row.pv_size),
    freeBytes: Number(row.pv_free),
  }))
}

export async function thinPools(host: Host): Promise<ThinPool[]> {
  const columns = 'lv_name,vg_name,lv_size,lv_metadata_size,data_percent,metadata_percent'
  const { stdout } = await runTool(host, ['lvs', ...asJson, '-S', 'segtype=thin-pool', '-o', columns])
  return parseThinPools(stdout)
}

export function parseThinPools(text: string): ThinPool[] {
  const part = (sizeBytes: number, percent = '') => Math.round((sizeBytes * Number(percent)) / 100)
  return rowsOf(text, 'lv').map((row) => {
    const [sizeBytes, metadataBytes] = [Number(row.lv_size), Number(row.lv_metadata_size)]
    return {
      name: row.lv_name ?? '',
      group: row.vg_name ?? '',
      sizeBytes,
      usedBytes: part(sizeBytes, row.data_percent),
      metadataBytes,
      metadataUsedBytes: part(metadataBytes, row.metadata_percent),
    }
  })
}

/** Makes the devices LVM's and a group of them. */
export async function createGroup(host: Host, name: string, device: string): Promise<void> {
  await runTool(host, ['vgcreate', '--yes', ...noCopies, '--', name, device])
}

/** Only a group without volumes: LVM refuses the others. The devices stay LVM's. */
export async function removeGroup(host: Host, name: string): Promise<void> {
  await runTool(host, ['vgremove', ...noCopies, '--', name])
}

/** The device is no longer LVM's. */
export async function removePhysical(host: Host, device: string): Promise<void> {
  await runTool(host, ['pvremove', '--yes', ...noCopies, '--', device])
}

/** Writes down what a group is made of, so that `restoreGroup` can make the same one again of the same devices. */
export async function saveGroup(host: Host, name: string, file: string): Promise<void> {
  await runTool(host, ['vgcfgbackup', '--file', file, '--', name])
}

export async function restoreGroup(host: Host, name: string, file: string): Promise<void> {
  await runTool(host, ['vgcfgrestore', ...noCopies, '--file', file, '--', name])
}

type Row = Readonly<Record<string, string | undefined>>

function rowsOf(text: string, kind: 'vg' | 'pv' | 'lv'): readonly Row[] {
  const { report } = JSON.parse(text) as { readonly report: readonly Readonly<Record<string, readonly Row[]>>[] }
  return report.flatMap((one) => one[kind] ?? [])
}
