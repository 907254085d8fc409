/** The property strings of the four drive buses: one list of keys, minus what a bus cannot do; and of the two drives of the firmware. */
import { boolean, enumOf, integer, number, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat, PropertyKey, Schema } from '#base/schema/schema.ts'

/** How many drives each bus takes, in the order firmware looks at them. */
export const buses = { scsi: 31, virtio: 16, ide: 4, sata: 6 } as const
export type Bus = keyof typeof buses

/** Drives the guest's firmware and TPM keep their state in: on no bus, and one of each. */
const firmwareDrives = { efidisk: 1, tpmstate: 1 } as const

/** Every kind of drive with its number; those of the firmware come last. */
export const driveCounts = { ...buses, ...firmwareDrives } as const
export type DriveKind = keyof typeof driveCounts

export function isDriveKind(text: string): text is DriveKind {
  return Object.hasOwn(driveCounts, text)
}

export function isBus(text: string): text is Bus {
  return Object.hasOwn(buses, text)
}

const key = (schema: Schema): PropertyKey => ({ schema: optional(schema) })

const limitKeys = ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr', 'iops_max', 'iops_rd_max', 'iops_wr_max']
const burstKeys = ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr'].map((name) => `${name}_max_length`)
const megabyteKeys = ['mbps', 'mbps_rd', 'mbps_wr', 'mbps_max', 'mbps_rd_max', 'mbps_wr_max']
const oldBurstKeys = ['bps_rd', 'bps_wr', 'iops_rd', 'iops_wr']
const largest = 1e15

/** Which volume it is. */
const place: PropertyFormat = {
  file: {
    schema: string({
      description: 'Volume, `none`, or `<storage>:<GiB>` for a new disk.',
      pattern: /none|cdrom|\/[^,]+|[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]:[^\s,:][^\s,]*/,
      maxLength: 1024,
    }),
    isDefaultKey: true,
  },
  volume: { schema: string({ maxLength: 1024 }), alias: 'file' },
  'import-from': key(
    string({ description: 'Copy this volume or file.', pattern: /\/[^,]+|[^\s,:]+:[^\s,]+/, maxLength: 1024 }),
  ),
}

const shared: PropertyFormat = {
  ...place,
  media: key(enumOf(['cdrom', 'disk'], { default: 'disk' })),
  format: key(enumOf(['raw', 'qcow', 'qed', 'qcow2', 'vmdk', 'cloop'])),
  size: key(string({ description: 'For information only.', format: 'disk-size' })),
  aio: key(enumOf(['native', 'threads', 'io_uring'])),
  backup: key(boolean({ description: 'Backups include the disk.' })),
  cache: key(enumOf(['none', 'writethrough', 'writeback', 'unsafe', 'directsync'])),
  detect_zeroes: key(boolean()),
  discard: key(enumOf(['ignore', 'on'])),
  replicate: key(boolean({ default: true })),
  rerror: key(enumOf(['ignore', 'report', 'stop'])),
  werror: key(enumOf(['enospc', 'ignore', 'report', 'stop'])),
  serial: key(string({ description: 'Serial number, URL-encoded.', format: 'urlencoded', maxLength: 60 })),
  shared: key(boolean({ default: false })),
  snapshot: key(boolean()),
  ...Object.fromEntries(limitKeys.map((name) => [name, key(integer({ minimum: 0, maximum: largest }))])),
  ...Object.fromEntries(burstKeys.map((name) => [name, key(integer({ minimum: 1, maximum: largest }))])),
  ...Object.fromEntries(megabyteKeys.map((name) => [name, key(number({ minimum: 0, maximum: 1e9 }))])),
  ...Object.fromEntries(
    oldBurstKeys.map((name) => [
      `${name}_length`,
      { schema: optional(integer({ minimum: 1, maximum: largest })), alias: `${name}_max_length` },
    ]),
  ),
}

const own: Readonly<Record<string, PropertyKey>> = {
  model: key(string({ description: 'Model the drive reports, URL-encoded.', format: 'urlencoded', maxLength: 120 })),
  ssd: key(boolean({ description: 'Tell the guest it does not rotate.' })),
  wwn: key(string({ pattern: /0x[0-9a-fA-F]{16}/ })),
  iothread: key(boolean({ description: 'A thread of its own.' })),
  ro: key(boolean({ description: 'The guest may only read.' })),
  queues: key(integer({ minimum: 2, maximum: 256 })),
  product: key(string({ pattern: /[A-Za-z0-9\-_\s]{0,16}/ })),
  vendor: key(string({ pattern: /[A-Za-z0-9\-_\s]{0,8}/ })),
  scsiblock: key(boolean({ default: false })),
}

const keysOf: Readonly<Record<Bus, readonly string[]>> = {
  ide: ['model', 'ssd', 'wwn'],
  sata: ['ssd', 'wwn'],
  scsi: ['ssd', 'wwn', 'iothread', 'ro', 'queues', 'product', 'vendor', 'scsiblock'],
  virtio: ['iothread', 'ro'],
}

const size = key(string({ description: 'For information only.', format: 'disk-size' }))

const efiFormat: PropertyFormat = {
  ...place,
  efitype: key(enumOf(['2m', '4m'], { description: 'Size of the firmware the variables are for.', default: '2m' })),
  format: key(enumOf(['raw', 'qcow', 'qed', 'qcow2', 'vmdk', 'cloop'])),
  'ms-cert': key(enumOf(['2011', '2023', '2023w', '2023k'], { default: '2011' })),
  'pre-enrolled-keys': key(boolean({ description: 'Start with keys for secure boot.', default: false })),
  size,
}

const tpmFormat: PropertyFormat = {
  ...place,
  format: key(enumOf(['raw', 'qcow2', 'vmdk'])),
  size,
  version: key(enumOf(['v1.2', 'v2.0'], { description: 'Version of the TPM.', default: 'v1.2' })),
}

const formats: Readonly<Record<DriveKind, PropertyFormat>> = {
  ide: formatOf('ide'),
  sata: formatOf('sata'),
  scsi: formatOf('scsi'),
  virtio: formatOf('virtio'),
  efidisk: efiFormat,
  tpmstate: tpmFormat,
}

function formatOf(bus: Bus): PropertyFormat {
  return { ...shared, ...Object.fromEntries(Object.entries(own).filter(([name]) => keysOf[bus].includes(name))) }
}

export function driveFormat(kind: DriveKind): PropertyFormat {
  return formats[kind]
}
