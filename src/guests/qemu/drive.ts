/**
 * Drives: `local:100/vm-100-disk-0.qcow2,size=8G` on one of four buses.
 *
 * One text serves two ends. In a stored configuration `file` names what is there; in a request it may also
 * ask for something new (`local:8` for 8 GiB, `import-from=`). `wishOf` tells the two apart; only wishes
 * that became volumes are ever stored.
 */
import { GiB, parseSize } from '#base/bytes.ts'
import type { VolumeId } from '#base/ids.ts'
import { asVolumeId } from '#base/ids.ts'
import type { Errors } from '#base/schema/check.ts'
import type { PropertyValues } from '#base/schema/property-string.ts'
import { printPropertyString, readPropertyString } from '#base/schema/property-string.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import type { Bus, DriveKind } from './drive-format.ts'
import { driveCounts, driveFormat, isBus, isDriveKind } from './drive-format.ts'

export interface Drive {
  /** `scsi0`. */
  readonly name: string
  readonly bus: DriveKind
  readonly index: number
  readonly isCdrom: boolean
  /** Volume id, `none`, `cdrom` or an absolute path. */
  readonly file: string
  readonly values: Readonly<PropertyValues>
}

/** What a drive's text asks for. */
export type DriveWish =
  | { readonly kind: 'empty' } //                                                 a cdrom drive without a disc
  | { readonly kind: 'host-cdrom' }
  | { readonly kind: 'path'; readonly path: string } //                           root only
  | { readonly kind: 'volume'; readonly volid: VolumeId }
  | { readonly kind: 'allocate'; readonly storage: string; readonly sizeBytes: number }
  | { readonly kind: 'import'; readonly storage: string; readonly source: string }
  | { readonly kind: 'cloudinit'; readonly storage: string } //                   a cloud-init drive to be made

/** `scsi0` is bus `scsi`, index 0; undefined for any other option. */
export function driveNameParts(name: string): { bus: DriveKind; index: number } | undefined {
  const [, bus = '', digits = ''] = /^([a-z]+)(0|[1-9]\d?)$/.exec(name) ?? []
  if (!isDriveKind(bus)) return undefined
  const index = Number(digits)
  return index < driveCounts[bus] ? { bus, index } : undefined
}

/** A drive the guest itself sees, unlike those of its firmware. */
export type BusDrive = Drive & { readonly bus: Bus }

export function isOnBus(drive: Drive): drive is BusDrive {
  return isBus(drive.bus)
}

/** True for the drives of the firmware: nothing boots from them. */
export function isFirmwareDrive(name: string): boolean {
  const parts = driveNameParts(name)
  return parts !== undefined && !isBus(parts.bus)
}

/** Names of the drives present, in the order firmware looks at them; last its own. */
export function driveNames(options: Options): string[] {
  return (Object.keys(driveCounts) as DriveKind[]).flatMap((kind) =>
    Array.from({ length: driveCounts[kind] }, (_, index) => `${kind}${index}`).filter(
      (name) => options[name] !== undefined,
    ),
  )
}

export function driveOf(name: string, text: string): Drive {
  const parts = driveNameParts(name)
  if (!parts) throw new Error(`'${name}' is not the name of a drive`)
  const values = readPropertyString(driveFormat(parts.bus), text, name)
  return { name, ...parts, values, file: String(values.file), isCdrom: values.media === 'cdrom' }
}

export function drivesOf(options: Options): Drive[] {
  return driveNames(options).map((name) => driveOf(name, options[name] ?? ''))
}

/** True for a text with `media=cdrom`; needs no bus. */
export function isCdrom(text: string): boolean {
  return /(^|,)\s*media=cdrom\s*(,|$)/.test(text)
}

/** A cloud-init drive of some guest, there (`local:100/vm-100-cloudinit.raw`) or wished for (`local:cloudinit`). */
const cloudInitFile =
  /^[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]:(?:cloudinit|[1-9]\d{2,8}\/vm-[1-9]\d{2,8}-cloudinit\.(?:raw|qcow2))$/

/** True for the text of a cloud-init drive; needs no bus. */
export function isCloudInit(text: string): boolean {
  return text.split(',').some((part) => cloudInitFile.test(part.trim().replace(/^(?:file|volume)=/, '')))
}

/** The cloud-init drives of a guest with the volume each is in; its own kind of volume, and no disk. */
export function cloudInitVolumesIn(options: Options): { name: string; volid: VolumeId }[] {
  return drivesOf(options).flatMap((drive) => {
    const wish = wishOf(drive)
    return wish.kind === 'volume' && isCloudInit(drive.file) ? [{ name: drive.name, volid: wish.volid }] : []
  })
}

export function printDrive(drive: Drive, changes: Readonly<Record<string, string | number | undefined>> = {}): string {
  return printPropertyString(driveFormat(drive.bus), { ...drive.values, ...changes })
}

/**
 * What the drive asks for.
 * @throws Fault `invalid` naming the drive when `file` is nothing a drive can hold
 */
export function wishOf(drive: Drive): DriveWish {
  const { file, values } = drive
  if (file === 'none') return { kind: 'empty' }
  if (file === 'cdrom') return { kind: 'host-cdrom' }
  if (file.startsWith('/')) return { kind: 'path', path: file }
  const [, storage = '', size = ''] = /^([a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]):(\d+(?:\.\d+)?)$/.exec(file) ?? []
  if (storage === '') {
    const [place = '', rest] = file.split(':')
    return rest === 'cloudinit' ? { kind: 'cloudinit', storage: place } : { kind: 'volume', volid: asVolumeId(file) }
  }
  const source = values['import-from']
  if (source !== undefined) return { kind: 'import', storage, source: String(source) }
  return { kind: 'allocate', storage, sizeBytes: Math.ceil(Number(size) * GiB) }
}

export function driveErrors(options: Options): Errors {
  const errors: Errors = {}
  let cloudInit: string | undefined
  for (const drive of drivesOf(options)) {
    const complaint = complaintAbout(drive)
    if (complaint !== undefined) errors[drive.name] = complaint
    if (!isCloudInit(drive.file)) continue
    if (cloudInit !== undefined) errors[drive.name] ??= `${cloudInit} is a cloud-init drive already: a guest has one`
    cloudInit ??= drive.name
  }
  return errors
}

function complaintAbout(drive: Drive): string | undefined {
  const { bus, file, isCdrom: isDisc, values } = drive
  const wish = wishOf(drive)
  if (!isOnBus(drive)) return complaintAboutFirmware(drive, wish)
  if (isCloudInit(file) && !isDisc) return 'a cloud-init drive is a cdrom drive: leave media=disk out'
  const isMediaOnly = wish.kind === 'empty' || wish.kind === 'host-cdrom'
  if (wish.kind === 'host-cdrom')
    return "the node's own cdrom drive is not supported by this release: use an ISO image or 'none'"
  if (isMediaOnly && !isDisc) return `'${file}' needs media=cdrom`
  if (isDisc && bus === 'virtio') return 'a cdrom drive cannot be on bus virtio: use ide, sata or scsi'
  if (isDisc && wish.kind === 'allocate') return 'a cdrom drive holds an ISO image or none: it cannot be allocated'
  if (values['import-from'] !== undefined && wish.kind !== 'import') {
    return "import-from needs a target of the form '<storage>:0'"
  }
  if (wish.kind === 'allocate' && wish.sizeBytes === 0) return 'a new disk needs a size: <storage>:<GiB>'
  if (values.snapshot === true) return 'temporary disks (snapshot=1) are not supported by this release'
  if (values.scsiblock === true) return 'device pass-through (scsiblock) is not supported by this release'
  return undefined
}

function complaintAboutFirmware({ bus, values }: Drive, wish: DriveWish): string | undefined {
  if (wish.kind !== 'volume' && wish.kind !== 'allocate' && wish.kind !== 'import') {
    return 'the state of the firmware is kept in a volume: <storage>:1 for a new one'
  }
  if (values['import-from'] !== undefined && wish.kind !== 'import') {
    return "import-from needs a target of the form '<storage>:0'"
  }
  if (bus === 'tpmstate' && values.format !== undefined && values.format !== 'raw') {
    return "the state of a TPM is kept in format 'raw'"
  }
  if (values['ms-cert'] !== undefined && values['ms-cert'] !== '2011') {
    return "the firmware of this node has the certificates of 2011 alone: leave 'ms-cert' out"
  }
  return undefined
}

/** The volume an option of a stored configuration holds: drives and `unusedN`; not discs. */
export function volumeIn(name: string, text: string): VolumeId | undefined {
  if (/^unused\d+$/.test(name)) return asVolumeId(String(readPropertyString(unusedFormat, text, name).file))
  if (!driveNameParts(name)) return undefined
  const drive = driveOf(name, text)
  const wish = wishOf(drive)
  return !drive.isCdrom && wish.kind === 'volume' ? wish.volid : undefined
}

/** All volumes the configuration holds, with the option that holds each. */
export function volumesIn(options: Options): { name: string; volid: VolumeId }[] {
  return Object.entries(options).flatMap(([name, text]) => {
    const volid = volumeIn(name, text)
    return volid === undefined ? [] : [{ name, volid }]
  })
}

/** Size the configuration remembers for a drive. */
export function rememberedSize(drive: Drive): number | undefined {
  return typeof drive.values.size === 'string' ? parseSize(drive.values.size) : undefined
}

export const unusedFormat: PropertyFormat = {
  file: { schema: { type: 'string', maxLength: 1024 }, isDefaultKey: true },
  volume: { schema: { type: 'string', maxLength: 1024 }, alias: 'file' },
}
