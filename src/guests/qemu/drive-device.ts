/**
 * What the guest sees of a drive: its device, the controller that is on, and the thread that serves it.
 *
 * Device names are contract inside the project: backup and drills address drives by them.
 */
import type { Options } from '../config.ts'
import type { DeviceSpec } from './argument.ts'
import type { BusDrive, Drive } from './drive.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

export const nodeNameOf = (drive: string) => `drive-${drive}`

/** A controller and the thread it has of its own. */
export interface Controller {
  readonly device: DeviceSpec
  /** Id of its thread; absent: QEMU's main one. */
  readonly thread?: string
}

/** The controller the drive needs beside what the machine has; absent for a drive that needs none. */
export function controllerOf(drive: Drive, options: Options, machine: MachineKind): Controller | undefined {
  if (drive.bus === 'sata') {
    return { device: { driver: 'ahci', properties: { id: 'ahci0', ...pciPlace(machine, 'ahci0') } } }
  }
  if (drive.bus !== 'scsi') return undefined
  const isOwn = options.scsihw === 'virtio-scsi-single'
  const thread = isOwn && drive.values.iothread === true ? threadName(drive.name) : undefined
  const queues = isOwn && typeof drive.values.queues === 'number' ? drive.values.queues : undefined
  const id = `scsihw${scsiPlace(drive.index, options).controller}`
  return {
    device: {
      driver: scsiDriver(options),
      properties: { id, ...pciPlace(machine, id), iothread: thread, num_queues: queues },
    },
    ...(thread === undefined ? {} : { thread }),
  }
}

/** The thread of a drive that has its own controller on the PCI bus. */
export function threadOf(drive: Drive): string | undefined {
  return drive.bus === 'virtio' && drive.values.iothread === true ? threadName(drive.name) : undefined
}

const threadName = (drive: string) => `iothread-${drive}`

function scsiDriver(options: Options): string {
  const kind = options.scsihw ?? 'lsi'
  return kind.startsWith('virtio-scsi') ? 'virtio-scsi-pci' : kind
}

/** Which controller a SCSI drive is on, and its number there. */
export function scsiPlace(index: number, options: Options): { controller: number; unit: number } {
  const kind = options.scsihw ?? 'lsi'
  const perController = kind === 'virtio-scsi-single' ? 1 : kind.startsWith('lsi') ? 7 : 256
  return { controller: Math.floor(index / perController), unit: index % perController }
}

/** @param hasFile false for a cdrom drive without a disc */
export function driveDevice(
  drive: BusDrive,
  options: Options,
  machine: MachineKind,
  { hasFile, bootindex }: { readonly hasFile: boolean; readonly bootindex: number | undefined },
): DeviceSpec {
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
      return {
        driver: 'virtio-blk-pci',
        properties: { ...common, ...pciPlace(machine, name), iothread: threadOf(drive) },
      }
    case 'scsi': {
      const { controller, unit } = scsiPlace(drive.index, options)
      const isVirtio = scsiDriver(options) === 'virtio-scsi-pci'
      const place = isVirtio ? { channel: 0, 'scsi-id': 0, lun: unit } : { 'scsi-id': unit }
      const vendor = { vendor: asText(values.vendor), product: asText(values.product) }
      const properties = { ...common, bus: `scsihw${controller}.0`, ...place, ...rotation, ...wwn, ...vendor }
      return { driver: isCdrom ? 'scsi-cd' : 'scsi-hd', properties }
    }
    case 'ide': {
      // The AHCI of q35 has one drive per port; the old controller two per cable.
      const unit = drive.index % 2
      const place =
        machine === 'q35' ? { bus: `ide.${drive.index}` } : { bus: `ide.${Math.floor(drive.index / 2)}`, unit }
      const model = typeof values.model === 'string' ? decodeURIComponent(values.model) : undefined
      return {
        driver: isCdrom ? 'ide-cd' : 'ide-hd',
        properties: { ...common, ...place, ...rotation, ...wwn, model },
      }
    }
    case 'sata': {
      const properties = { ...common, bus: `ahci0.${drive.index}`, ...rotation, ...wwn }
      return { driver: isCdrom ? 'ide-cd' : 'ide-hd', properties }
    }
    default:
      return drive.bus satisfies never
  }
}

function asText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
