/** Devices on the buses of the machine, as `/sys` tells them. Names come from the lists of the distribution, where installed. */
import { chown, readdir, readlink } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { codeOf, readIfPresent } from '../files.ts'

export interface PciDevice {
  /** `0000:00:02.0` */
  readonly id: string
  /** `0x060100` */
  readonly class: string
  readonly vendor: string
  readonly device: string
  readonly subsystemVendor: string | undefined
  readonly subsystemDevice: string | undefined
  /** -1 where the machine has no IOMMU in force. */
  readonly iommuGroup: number
  /** Can be split into mediated devices. */
  readonly hasMediated: boolean
}

export interface MediatedType {
  readonly type: string
  readonly name: string | undefined
  readonly description: string
  readonly available: number
}

export interface UsbDevice {
  readonly bus: number
  readonly device: number
  readonly class: number
  readonly vendor: string
  readonly product: string
  /** Mbit per second. */
  readonly speed: string
  readonly level: number
  readonly port: number
  /** `1.2` below its bus. */
  readonly path: string
  readonly manufacturer: string | undefined
  readonly productName: string | undefined
  readonly serial: string | undefined
}

/** Names by `vvvv` and `vvvv:dddd`. */
export type DeviceNames = ReadonlyMap<string, string>

/** @param root stands for `/sys` */
export async function pciDevices(root = '/sys'): Promise<PciDevice[]> {
  const directory = join(root, 'bus/pci/devices')
  return Promise.all((await entriesOf(directory)).map((id) => pciDevice(directory, id)))
}

async function pciDevice(directory: string, id: string): Promise<PciDevice> {
  const at = join(directory, id)
  const [kind, vendor, device, subsystemVendor, subsystemDevice] = await Promise.all(
    ['class', 'vendor', 'device', 'subsystem_vendor', 'subsystem_device'].map((name) => word(join(at, name))),
  )
  const group = await readlink(join(at, 'iommu_group')).catch(() => undefined)
  return {
    id,
    class: kind ?? '0x000000',
    vendor: vendor ?? '0x0000',
    device: device ?? '0x0000',
    subsystemVendor,
    subsystemDevice,
    iommuGroup: group === undefined ? -1 : Number(basename(group)),
    hasMediated: (await entriesOf(join(at, 'mdev_supported_types'))).length > 0,
  }
}

/** What a device can be split into; nothing for one that cannot, or is not there. */
export async function mediatedTypes(id: string, root = '/sys'): Promise<MediatedType[]> {
  const full = /^[0-9a-fA-F]{4}:/.test(id) ? id : `0000:${id}`
  const directory = join(root, 'bus/pci/devices', full.toLowerCase(), 'mdev_supported_types')
  return Promise.all(
    (await entriesOf(directory)).map(async (type) => ({
      type,
      name: await word(join(directory, type, 'name')),
      description: (await word(join(directory, type, 'description'))) ?? '',
      available: Number((await word(join(directory, type, 'available_instances'))) ?? 0),
    })),
  )
}

/** @param root stands for `/sys` */
export async function usbDevices(root = '/sys'): Promise<UsbDevice[]> {
  const directory = join(root, 'bus/usb/devices')
  const names = (await entriesOf(directory)).filter((name) => !name.includes(':'))
  return Promise.all(names.map((name) => usbDevice(join(directory, name), name)))
}

/** Lets that user open the device. */
export async function giveUsbDevice({ bus, device }: UsbDevice, uid: number): Promise<void> {
  const [first, second] = [bus, device].map((number) => String(number).padStart(3, '0'))
  await chown(`/dev/bus/usb/${first}/${second}`, uid, 0)
}

async function usbDevice(at: string, name: string): Promise<UsbDevice> {
  const read = (file: string) => word(join(at, file))
  const path = /^\d+-([\d.]+)$/.exec(name)?.[1] ?? ''
  const ports = path.split('.').filter(Boolean)
  return {
    bus: Number((await read('busnum')) ?? 0),
    device: Number((await read('devnum')) ?? 0),
    class: Number.parseInt((await read('bDeviceClass')) ?? '0', 16),
    vendor: (await read('idVendor')) ?? '0000',
    product: (await read('idProduct')) ?? '0000',
    speed: (await read('speed')) ?? '0',
    level: ports.length,
    port: Math.max(0, Number(ports.at(-1) ?? 1) - 1),
    path,
    manufacturer: await read('manufacturer'),
    productName: await read('product'),
    serial: await read('serial'),
  }
}

/** Names of PCI devices, where the distribution's list is installed. */
export async function pciNames(): Promise<DeviceNames> {
  for (const file of ['/usr/share/misc/pci.ids', '/usr/share/hwdata/pci.ids']) {
    const text = await readIfPresent(file)
    if (text !== undefined) return parseNames(text)
  }
  return new Map()
}

/** Reads `pci.ids`: a vendor a line, its devices below it behind a tab. */
export function parseNames(text: string): DeviceNames {
  const names = new Map<string, string>()
  let vendor: string | undefined
  for (const line of text.split('\n')) {
    // Classes of devices come last and are no vendors.
    if (/^C [0-9a-f]{2} /.test(line)) break
    const [, tabs = '', id, name] = /^(\t?)([0-9a-f]{4}) {2}(.+)$/.exec(line) ?? []
    if (id === undefined || name === undefined) continue
    if (tabs === '') vendor = id
    names.set(tabs === '' ? id : `${vendor}:${id}`, name.trim())
  }
  return names
}

async function word(path: string): Promise<string | undefined> {
  return (await readIfPresent(path))?.trim()
}

async function entriesOf(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).toSorted()
  } catch (cause) {
    // A machine without that bus has no such directory.
    if (codeOf(cause) === 'ENOENT') return []
    throw cause
  }
}
