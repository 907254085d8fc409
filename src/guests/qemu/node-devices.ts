/**
 * What a guest needs of the machine it starts on, beside files and cables: processors, memory nodes and pages,
 * devices. Asked before anything is made, so that a start that cannot succeed says why in plain words.
 */
import { chown, open, stat } from 'node:fs/promises'
import { Fault, missing } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { MiB } from '#base/bytes.ts'
import { giveUsbDevice, pciDevices, type UsbDevice, usbDevices } from '#host/system/devices.ts'
import { codeOf } from '#host/files.ts'
import { freeHugePages, memoryNodes, onlineProcessors } from '#host/system/topology.ts'
import type { Options } from '../config.ts'
import type { GuestDevices } from '../needs.ts'
import { requireConfidentialHost } from './confidential.ts'
import type { CpuModel } from './cpu.ts'
import { customModelOf } from './cpu.ts'
import { requireFirmware } from './firmware.ts'
import { hostpcisOf } from './hostpci.ts'
import { sharedMemoryOf } from './ivshmem.ts'
import { memoryMiBOf } from './memory.ts'
import { hostNodesOf, hugePageBytes } from './numa.ts'
import { numbersIn } from './processors.ts'
import type { UsbPlace, UsbWish } from './usb.ts'
import { usbsOf } from './usb.ts'
import { foldersOf } from './virtiofs.ts'

export interface FoundDevices {
  readonly usb: Readonly<Record<string, UsbPlace>>
  readonly cpuModel: CpuModel | undefined
  /** Path of each shared folder. */
  readonly folders: Readonly<Record<string, string>>
  /** Group that may use the memory the guest shares. */
  readonly groups: readonly number[]
}

/** @throws Fault `unavailable` or `missing` naming what the machine does not have */
export async function findDevices(
  vmid: Vmid,
  options: Options,
  { devices, uid }: { readonly devices: GuestDevices | undefined; readonly uid: number },
): Promise<FoundDevices> {
  await requireConfidentialHost(vmid, options)
  await requireFirmware(options)
  await requireProcessors(vmid, options)
  await requireHugePages(vmid, options)
  await requirePci(vmid, options, devices)
  const usb = await findUsb(vmid, options, devices, uid)
  const folders = await findFolders(vmid, options, devices)
  const cpuModel = await cpuModelOf(vmid, options, devices)
  return { usb, cpuModel, folders, groups: await shareMemory(options, vmid, uid) }
}

async function requireProcessors(vmid: Vmid, options: Options): Promise<void> {
  const online = await onlineProcessors()
  const there = new Set(numbersIn(online, ','))
  const absent = numbersIn(options.affinity ?? '', ',')?.find((number) => !there.has(number))
  if (absent !== undefined) {
    throw new Fault('unavailable', `VM ${vmid}: affinity names processor ${absent}, the node has ${online}`)
  }
  const nodes = await memoryNodes()
  const node = hostNodesOf(options).find((number) => !nodes.includes(number))
  if (node === undefined) return
  throw new Fault('unavailable', `VM ${vmid}: hostnodes names memory node ${node}, the machine has ${nodes.join(', ')}`)
}

async function requireHugePages(vmid: Vmid, options: Options): Promise<void> {
  const bytes = hugePageBytes(options)
  if (bytes === undefined) return
  const wanted = (memoryMiBOf(options) * MiB) / bytes
  const free = (await freeHugePages(bytes)) ?? 0
  if (free >= wanted) return
  const kind = `huge pages of ${bytes / MiB} MiB`
  throw new Fault('exhausted', `VM ${vmid} needs ${wanted} ${kind}, and the node has ${free} free`, {
    remedy: `Set more aside in /sys/kernel/mm/hugepages/hugepages-${bytes / 1024}kB/nr_hugepages, or take the option hugepages out.`,
  })
}

/** @throws Fault in any case where the guest asks for one: this release cannot pass them on */
async function requirePci(vmid: Vmid, options: Options, devices: GuestDevices | undefined): Promise<void> {
  const [wish] = hostpcisOf(options)
  if (!wish) return
  const choices = wish.mapping === undefined ? [wish.host] : await devices?.pciMapping(wish.mapping)
  if (!choices?.[0]) throw missing('PCI mapping', `${wish.mapping} on this node`)
  const all = await pciDevices()
  for (const host of choices[0]) {
    const full = (/^[0-9a-f]{4,}:/i.test(host) ? host : `0000:${host}`).toLowerCase()
    const found = all.filter(({ id }) => id === full || id.startsWith(`${full}.`))
    if (found.length === 0) throw new Fault('missing', `VM ${vmid}: ${wish.name}: there is no PCI device '${host}'`)
    if (found.every(({ iommuGroup }) => iommuGroup >= 0)) continue
    throw new Fault('unavailable', `VM ${vmid}: ${wish.name}: this machine has no IOMMU in force for '${host}'`, {
      remedy: 'Switch it on in the firmware and on the kernel command line.',
    })
  }
  throw new Fault(
    'unavailable',
    `VM ${vmid}: ${wish.name}: giving PCI devices to guests is not supported by this release`,
  )
}

async function findUsb(
  vmid: Vmid,
  options: Options,
  devices: GuestDevices | undefined,
  uid: number,
): Promise<Record<string, UsbPlace>> {
  const wishes = usbsOf(options)
  const all = wishes.length === 0 ? [] : await usbDevices()
  const found: Record<string, UsbPlace> = {}
  for (const { name, wish } of wishes) {
    const device = all.find((one) => matches(one, wish)) ?? (await mappedUsb(all, wish, devices))
    if (!device) throw new Fault('missing', `VM ${vmid}: ${name}: USB device ${said(wish)} is not plugged in here`)
    // QEMU has no rights of its own: the one device becomes the guest's.
    await giveUsbDevice(device, uid)
    found[name] = { bus: device.bus, port: device.path }
  }
  return found
}

async function mappedUsb(
  all: readonly UsbDevice[],
  wish: UsbWish,
  devices: GuestDevices | undefined,
): Promise<UsbDevice | undefined> {
  if (wish.by !== 'mapping') return undefined
  const choices = (await devices?.usbMapping(wish.name)) ?? []
  return all.find((one) => choices.some((choice) => matches(one, choice)))
}

function matches(device: UsbDevice, wish: UsbWish): boolean {
  if (wish.by === 'port') {
    const { vendor = device.vendor, product = device.product } = wish
    const isThere = device.bus === wish.bus && device.path === wish.port
    return isThere && device.vendor === vendor && device.product === product
  }
  return wish.by === 'id' && device.vendor === wish.vendor && device.product === wish.product
}

function said(wish: UsbWish): string {
  if (wish.by === 'mapping') return `of mapping '${wish.name}'`
  return wish.by === 'port' ? `${wish.bus}-${wish.port}` : `${wish.vendor}:${wish.product}`
}

async function findFolders(
  vmid: Vmid,
  options: Options,
  devices: GuestDevices | undefined,
): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const { name, mapping } of foldersOf(options)) {
    const path = await devices?.directoryMapping(mapping)
    if (path === undefined) throw missing('directory mapping', `${mapping} on this node`)
    const isFolder = (await stat(path).catch(onlyIfAbsent))?.isDirectory()
    if (isFolder !== true) {
      throw new Fault('missing', `VM ${vmid}: ${name}: '${path}', which mapping '${mapping}' names, is no directory`, {
        remedy: 'Make it, mount what should be there, or change the mapping.',
      })
    }
    found[name] = path
  }
  return found
}

function onlyIfAbsent(cause: unknown): undefined {
  if (!['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG'].includes(codeOf(cause) ?? '')) throw cause
}

async function cpuModelOf(
  vmid: Vmid,
  options: Options,
  devices: GuestDevices | undefined,
): Promise<CpuModel | undefined> {
  const name = customModelOf(options)
  if (name === undefined) return undefined
  const model = await devices?.cpuModel(name)
  if (model) return model
  throw new Fault('missing', `VM ${vmid}: custom cputype '${name}' does not exist`)
}

/**
 * Makes the file of the shared memory, unless another guest has. It belongs to root and to the group of the guest that
 * came first; the others join that group.
 */
async function shareMemory(options: Options, vmid: Vmid, gid: number): Promise<number[]> {
  const memory = sharedMemoryOf(options, vmid)
  if (!memory) return []
  const { path, sizeMiB } = memory
  try {
    await using file = await open(path, 'wx', 0o660)
    await file.chmod(0o660)
    await file.truncate(sizeMiB * MiB)
    await chown(path, 0, gid)
    return [gid]
  } catch (cause) {
    if (codeOf(cause) !== 'EEXIST') throw cause
  }
  const facts = await stat(path)
  if (facts.uid !== 0 || !facts.isFile()) throw new Fault('conflict', `'${path}' belongs to somebody else`)
  if (facts.size === sizeMiB * MiB) return [facts.gid]
  throw new Fault('conflict', `VM ${vmid}: ivshmem: '${path}' has ${facts.size / MiB} MiB, not ${sizeMiB}`)
}
