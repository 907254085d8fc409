/**
 * Drives on the command line: one block node per drive (`drive-scsi0` over `file-scsi0`) and one device (`scsi0`).
 *
 * Node and device names are contract inside the project: backup and drills address drives by them.
 */
import { MiB } from '#base/bytes.ts'
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'
import { bootIndexes } from './boot.ts'
import type { Drive } from './drive.ts'
import { drivesOf } from './drive.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

/** What must be known about a drive's file to open it. */
export interface DriveFile {
  readonly path: string
  /** `raw` or `qcow2`; an ISO image is `raw`. */
  readonly format: string
  /** False where the file system cannot bypass the page cache (some overlays): then it is used. */
  readonly canBypassCache: boolean
  /**
   * What the image is based on, nearest first: open descriptors QEMU inherits. Its own uid may not open these files,
   * because they are other guests' too.
   */
  readonly backing?: readonly BackingFile[]
}

export interface BackingFile {
  readonly descriptor: number
  readonly format: string
}

export const nodeNameOf = (drive: string) => `drive-${drive}`

/** @param files the file of each drive that has one, by drive name */
export function drivesToArgv(
  options: Options,
  machine: MachineKind,
  files: Readonly<Record<string, DriveFile>>,
): string[] {
  const drives = drivesOf(options)
  const indexes = bootIndexes(options)
  const argv = controllersFor(options, drives, machine)
  for (const drive of drives) {
    const file = files[drive.name]
    for (const { descriptor } of file?.backing ?? []) {
      argv.push('-add-fd', keyed('', { fd: descriptor, set: descriptor }))
    }
    if (file) argv.push('-blockdev', JSON.stringify(blockNode(drive, file)))
    argv.push(...driveDevice(drive, options, machine, file !== undefined, indexes.get(drive.name)))
  }
  return argv
}

/** PCI devices the drives need, by the names `pci.ts` knows. */
export function pciNamesOfDrives(options: Options): string[] {
  const drives = drivesOf(options)
  return [
    ...new Set(
      drives.flatMap((drive) => {
        if (drive.bus === 'virtio') return [drive.name]
        if (drive.bus === 'scsi') return [`scsihw${scsiPlace(drive.index, options).controller}`]
        return drive.bus === 'sata' ? ['ahci0'] : []
      }),
    ),
  ]
}

function controllersFor(options: Options, drives: readonly Drive[], machine: MachineKind): string[] {
  const argv: string[] = []
  const controllers = new Map<number, Drive>()
  for (const drive of drives) {
    if (drive.bus === 'scsi') controllers.set(scsiPlace(drive.index, options).controller, drive)
  }
  for (const [number, drive] of controllers) {
    const isOwn = options.scsihw === 'virtio-scsi-single'
    const thread = isOwn && drive.values.iothread === true ? `iothread-${drive.name}` : undefined
    if (thread !== undefined) argv.push('-object', keyed('iothread', { id: thread }))
    const queues = isOwn && typeof drive.values.queues === 'number' ? drive.values.queues : undefined
    const name = `scsihw${number}`
    argv.push(
      ...device(scsiDriver(options), { id: name, ...pciPlace(machine, name), iothread: thread, num_queues: queues }),
    )
  }
  if (drives.some((drive) => drive.bus === 'sata'))
    argv.push(...device('ahci', { id: 'ahci0', ...pciPlace(machine, 'ahci0') }))
  return argv
}

function scsiDriver(options: Options): string {
  const kind = options.scsihw ?? 'lsi'
  return kind.startsWith('virtio-scsi') ? 'virtio-scsi-pci' : kind
}

/** Which controller a SCSI drive is on, and its number there. */
function scsiPlace(index: number, options: Options): { controller: number; unit: number } {
  const kind = options.scsihw ?? 'lsi'
  const perController = kind === 'virtio-scsi-single' ? 1 : kind.startsWith('lsi') ? 7 : 256
  return { controller: Math.floor(index / perController), unit: index % perController }
}

const bypassing = new Set(['none', 'directsync'])

/** @param nodeName another name than the drive's own, for a node that is to take its place; its file is not named then */
export function blockNode(drive: Drive, file: DriveFile, nodeName = nodeNameOf(drive.name)): object {
  const { values, isCdrom } = drive
  const mode = String(values.cache ?? (isCdrom ? 'writeback' : 'none'))
  const cache = { direct: bypassing.has(mode) && file.canBypassCache, 'no-flush': mode === 'unsafe' }
  const discard = values.discard === 'on' ? 'unmap' : 'ignore'
  // Writing zeroes is the one discard every guest knows; without discard it still saves the disk from them.
  const zeroes = values.detect_zeroes === false || isCdrom ? 'off' : discard === 'unmap' ? 'unmap' : 'on'
  const readOnly = isCdrom || values.ro === true
  const aio = values.aio === 'native' && !cache.direct ? 'threads' : (values.aio ?? 'threads')
  const isQcow2 = file.format === 'qcow2'
  return {
    driver: isQcow2 ? 'qcow2' : 'raw',
    'node-name': nodeName,
    'read-only': readOnly,
    cache,
    discard,
    'detect-zeroes': zeroes,
    // Said in any case: otherwise QEMU would open whatever the image names.
    ...(isQcow2 ? { backing: backingNode(file.backing ?? []) } : {}),
    file: {
      driver: 'file',
      ...(nodeName === nodeNameOf(drive.name) ? { 'node-name': `file-${drive.name}` } : {}),
      filename: file.path,
      'read-only': readOnly,
      aio,
      cache,
      discard,
    },
  }
}

function backingNode([first, ...rest]: readonly BackingFile[]): object | null {
  if (!first) return null
  return {
    driver: first.format,
    'read-only': true,
    ...(first.format === 'qcow2' ? { backing: backingNode(rest) } : {}),
    file: { driver: 'file', filename: `/dev/fdset/${first.descriptor}`, 'read-only': true },
  }
}

function driveDevice(
  drive: Drive,
  options: Options,
  machine: MachineKind,
  hasFile: boolean,
  bootindex?: number,
): string[] {
  const { name, values, isCdrom } = drive
  const writesThrough = values.cache === 'writethrough' || values.cache === 'directsync'
  const common = {
    id: name,
    drive: hasFile ? nodeNameOf(name) : undefined,
    bootindex,
    serial: typeof values.serial === 'string' ? decodeURIComponent(values.serial) : undefined,
    rerror: isCdrom ? undefined : asText(values.rerror),
    werror: isCdrom ? undefined : asText(values.werror),
    'write-cache': isCdrom || !writesThrough ? undefined : 'off',
  }
  const rotation = values.ssd === true && !isCdrom ? { rotation_rate: 1 } : {}
  const wwn = { wwn: asText(values.wwn) }
  switch (drive.bus) {
    case 'virtio':
      return [
        ...threadOf(drive),
        ...device('virtio-blk-pci', {
          ...common,
          ...pciPlace(machine, name),
          iothread: values.iothread === true ? `iothread-${name}` : undefined,
        }),
      ]
    case 'scsi': {
      const { controller, unit } = scsiPlace(drive.index, options)
      const isVirtio = scsiDriver(options) === 'virtio-scsi-pci'
      const place = isVirtio ? { channel: 0, 'scsi-id': 0, lun: unit } : { 'scsi-id': unit }
      const vendor = { vendor: asText(values.vendor), product: asText(values.product) }
      const driver = isCdrom ? 'scsi-cd' : 'scsi-hd'
      return device(driver, { ...common, bus: `scsihw${controller}.0`, ...place, ...rotation, ...wwn, ...vendor })
    }
    case 'ide': {
      // The AHCI of q35 has one drive per port; the old controller two per cable.
      const unit = drive.index % 2
      const place =
        machine === 'q35' ? { bus: `ide.${drive.index}` } : { bus: `ide.${Math.floor(drive.index / 2)}`, unit }
      const model = typeof values.model === 'string' ? decodeURIComponent(values.model) : undefined
      return device(isCdrom ? 'ide-cd' : 'ide-hd', { ...common, ...place, ...rotation, ...wwn, model })
    }
    case 'sata':
      return device(isCdrom ? 'ide-cd' : 'ide-hd', { ...common, bus: `ahci0.${drive.index}`, ...rotation, ...wwn })
    default:
      return drive.bus satisfies never
  }
}

function threadOf(drive: Drive): string[] {
  return drive.values.iothread === true ? ['-object', keyed('iothread', { id: `iothread-${drive.name}` })] : []
}

function asText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** Arguments of QMP `block_set_io_throttle`; undefined when the drive has no limits. */
export function throttleOf(drive: Drive): Record<string, string | number> | undefined {
  const { values } = drive
  const number = (name: string) => (typeof values[name] === 'number' ? Number(values[name]) : undefined)
  const bytes = (name: string) => number(`mbps${name}`)
  const result: Record<string, string | number> = { id: drive.name }
  let hasLimit = false
  for (const side of ['', '_rd', '_wr']) {
    const megabytes = bytes(side)
    const rate = number(`bps${side}`) ?? (megabytes === undefined ? undefined : Math.round(megabytes * MiB))
    const burst = bytes(`${side}_max`)
    const limits = {
      [`bps${side}`]: rate,
      [`iops${side}`]: number(`iops${side}`),
      [`bps${side}_max`]: burst === undefined ? undefined : Math.round(burst * MiB),
      [`iops${side}_max`]: number(`iops${side}_max`),
      [`bps${side}_max_length`]: number(`bps${side}_max_length`),
      [`iops${side}_max_length`]: number(`iops${side}_max_length`),
    }
    for (const [name, value] of Object.entries(limits)) {
      if (value === undefined) continue
      result[name] = value
      hasLimit = true
    }
  }
  if (!hasLimit) return undefined
  // The command wants these six always; 0 is no limit.
  for (const name of ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr']) result[name] ??= 0
  return result
}
