/**
 * Reads an OVF description: one virtual machine in DMTF's words, as other platforms export it.
 *
 * Only what can be carried over is read; what cannot becomes a warning, and what is merely unknown is passed over. The
 * text is not trusted: its length is limited, document types (and with them entities) are refused, and every value is
 * checked before it means anything.
 */
import { parseXml, XmlElement } from '@rgrove/parse-xml'
import { KiB, MiB } from '#base/bytes.ts'
import { Fault, messageOf } from '#base/fault.ts'

export const mostOvfBytes = MiB

export interface OvfDisk {
  /** `scsi0` */
  readonly drive: string
  /** File beside the description, as it is written there. */
  readonly file: string
  /** As a guest sees it, where it is said. */
  readonly sizeBytes?: number | undefined
}

export interface OvfNic {
  readonly model: string
  readonly macaddr?: string | undefined
}

export type OvfWarning = 'cdrom-image-ignored' | 'efi-state-lost' | 'nvme-unsupported'

export interface Ovf {
  readonly name?: string | undefined
  readonly cores?: number | undefined
  readonly memoryMiB?: number | undefined
  readonly ostype?: string | undefined
  readonly isEfi: boolean
  readonly scsihw?: string | undefined
  readonly disks: readonly OvfDisk[]
  readonly nics: readonly OvfNic[]
  readonly warnings: readonly { readonly type: OvfWarning; readonly key?: string | undefined }[]
}

/** Numbers of CIM_ResourceAllocationSettingData. */
const kinds = { cpu: '3', memory: '4', ide: '5', scsi: '6', nic: '10', cdrom: ['15', '16'], disk: '17', other: '20' }
const most = { ide: 4, sata: 6, scsi: 31 } as const
type Bus = keyof typeof most

/** @throws Fault `damaged` when it is no such description, or none of exactly one machine */
export function parseOvf(text: string): Ovf {
  const root = rootOf(text)
  const machine = childrenOf(root, 'VirtualSystem')
  const [system] = machine
  if (!system || machine.length > 1) {
    throw new Fault('damaged', `the OVF describes ${machine.length} virtual machines, and exactly one can be imported`)
  }
  const hardware = childrenOf(system, 'VirtualHardwareSection')[0]
  const items = itemsIn(hardware)
  const of = (kind: string) => items.filter(({ ResourceType: type }) => type === kind)
  const { disks, warnings } = disksIn(root, items)
  const cdroms = items.filter(
    ({ ResourceType: type, HostResource: image }) => kinds.cdrom.includes(type ?? '') && image,
  )
  const isEfi = configOf(hardware, 'firmware') === 'efi'
  return {
    name: nameOf(textOf(system, 'Name') ?? system.attributes['ovf:id']),
    cores: countIn(of(kinds.cpu)[0]?.['VirtualQuantity'], 1024),
    memoryMiB: memoryIn(of(kinds.memory)[0]),
    ostype: osTypeOf(system),
    isEfi,
    scsihw: scsiModel(of(kinds.scsi)[0]?.['ResourceSubType']),
    disks,
    nics: of(kinds.nic).slice(0, 32).map(nicOf),
    warnings: [
      ...warnings,
      ...cdroms.map(() => ({ type: 'cdrom-image-ignored' as const })),
      ...(isEfi ? [{ type: 'efi-state-lost' as const, key: 'bios' }] : []),
    ],
  }
}

function rootOf(text: string): XmlElement {
  if (text.length > mostOvfBytes) throw new Fault('too-large', `an OVF has at most ${mostOvfBytes / KiB} KiB`)
  // Entities are defined there, and nobody who exports a machine needs any.
  if (text.includes('<!DOCTYPE')) throw new Fault('damaged', 'the OVF has a document type, which is not accepted')
  let root: XmlElement | null
  try {
    root = parseXml(text).root
  } catch (cause) {
    throw new Fault('damaged', `the OVF is not well-formed: ${messageOf(cause).split('\n')[0]?.slice(0, 200)}`, {
      cause,
    })
  }
  if (root === null || localName(root) !== 'Envelope') throw new Fault('damaged', 'the file is no OVF description')
  return root
}

/** Prefixes are the writer's choice; the local names are those of the standard. */
function localName({ name }: XmlElement): string {
  return name.slice(name.indexOf(':') + 1)
}

function childrenOf(element: XmlElement | undefined, name: string): XmlElement[] {
  const elements = element?.children.filter((child) => child instanceof XmlElement) ?? []
  return elements.filter((child) => localName(child) === name)
}

function textOf(element: XmlElement | undefined, name: string): string | undefined {
  return childrenOf(element, name)[0]?.text.trim()
}

/** The value of an attribute, whatever its prefix. */
function attributeOf({ attributes }: XmlElement, name: string): string | undefined {
  const key = Object.keys(attributes).find((one) => one === name || one.endsWith(`:${name}`))
  return key === undefined ? undefined : attributes[key]
}

type Item = Readonly<Record<string, string | undefined>>

/** Each item as local names and texts. */
function itemsIn(hardware: XmlElement | undefined): Item[] {
  const elements = ['Item', 'StorageItem', 'EthernetPortItem'].flatMap((name) => childrenOf(hardware, name))
  return elements.slice(0, 256).map((element) => {
    const parts = element.children.filter((child) => child instanceof XmlElement)
    return Object.fromEntries(parts.map((part) => [localName(part), part.text.trim()]))
  })
}

function disksIn(root: XmlElement, items: readonly Item[]): Pick<Ovf, 'disks' | 'warnings'> {
  const files = new Map(
    childrenOf(childrenOf(root, 'References')[0], 'File').map((file) => [attributeOf(file, 'id'), file]),
  )
  const described = new Map(
    childrenOf(childrenOf(root, 'DiskSection')[0], 'Disk').map((disk) => [attributeOf(disk, 'diskId'), disk]),
  )
  const controllers = new Map(items.map((item) => [item['InstanceID'], item]))
  const disks: OvfDisk[] = []
  const warnings: Ovf['warnings'][number][] = []
  for (const item of items.filter(({ ResourceType: type }) => type === kinds.disk)) {
    const disk = described.get(/^(?:ovf:)?\/?disk\/(.+)$/.exec(item['HostResource'] ?? '')?.[1])
    const file = disk && files.get(attributeOf(disk, 'fileRef'))
    const href = file && attributeOf(file, 'href')
    // An empty disk of the size it says would not be what was exported.
    if (!disk || !file || href === undefined) throw new Fault('damaged', 'the OVF has a disk without a file')
    if ((attributeOf(file, 'compression') ?? 'identity') !== 'identity') {
      throw new Fault('invalid', `the OVF has a compressed disk, '${printable(href)}', which cannot be imported`)
    }
    const controller = controllers.get(item['Parent'])
    const isNvme = /nvme/i.test(controller?.['ResourceSubType'] ?? '')
    const drive = driveFor(busOf(controller), item['AddressOnParent'], disks)
    if (isNvme) warnings.push({ type: 'nvme-unsupported', key: drive })
    disks.push({ drive, file: href, sizeBytes: capacityOf(disk) })
  }
  return { disks, warnings }
}

function busOf(controller: Item | undefined): Bus {
  if (controller?.['ResourceType'] === kinds.ide) return 'ide'
  const isSata = controller?.['ResourceType'] === kinds.other && /ahci|sata/i.test(controller['ResourceSubType'] ?? '')
  return isSata ? 'sata' : 'scsi'
}

/** Where it is on its controller, or the next free place: controllers of one kind become one bus. */
function driveFor(bus: Bus, address: string | undefined, taken: readonly OvfDisk[]): string {
  const isFree = (index: number) => !taken.some(({ drive }) => drive === `${bus}${index}`)
  const wished = Number(/^\d{1,3}$/.exec(address ?? '')?.[0] ?? NaN)
  if (wished < most[bus] && isFree(wished)) return `${bus}${wished}`
  for (let index = 0; index < most[bus]; index += 1) if (isFree(index)) return `${bus}${index}`
  throw new Fault('invalid', `the OVF has more than ${most[bus]} disks on ${bus}`)
}

function capacityOf(disk: XmlElement): number | undefined {
  const capacity = Number(/^\d{1,15}$/.exec(attributeOf(disk, 'capacity') ?? '')?.[0] ?? NaN)
  const bytes = capacity * unitOf(attributeOf(disk, 'capacityAllocationUnits'))
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

function memoryIn(item: Item | undefined): number | undefined {
  const bytes = Number(/^\d{1,12}$/.exec(item?.['VirtualQuantity'] ?? '')?.[0] ?? NaN) * memoryUnitOf(item)
  const count = Math.round(bytes / MiB)
  return count >= 16 && count <= 2 ** 22 ? count : undefined
}

function memoryUnitOf(item: Item | undefined): number {
  const units = item?.['AllocationUnits']
  // Without any the standard says bytes, and everybody means megabytes.
  return units === undefined || units === '' ? MiB : unitOf(units)
}

/** `byte * 2^20`, and the words of older versions. */
function unitOf(text = 'byte'): number {
  const power = /^bytes?\s*\*\s*2\s*\^\s*(\d{1,2})$/i.exec(text.trim())?.[1]
  if (power !== undefined) return 2 ** Number(power)
  const word = /^(kilo|mega|giga|tera)?bytes?$/i.exec(text.trim())
  if (!word) return NaN
  return 1024 ** ['', 'kilo', 'mega', 'giga', 'tera'].indexOf(word[1]?.toLowerCase() ?? '')
}

function countIn(text: string | undefined, highest: number): number | undefined {
  const count = Number(/^\d{1,6}$/.exec(text ?? '')?.[0] ?? NaN)
  return count >= 1 && count <= highest ? count : undefined
}

const models: readonly (readonly [RegExp, string])[] = [
  [/vmxnet3/i, 'vmxnet3'],
  [/e1000e/i, 'e1000e'],
  [/e1000/i, 'e1000'],
  [/virtio/i, 'virtio'],
  [/pcnet/i, 'pcnet'],
]

function nicOf({ ResourceSubType: kind = '', Address: address = '' }: Item): OvfNic {
  const model = models.find(([pattern]) => pattern.test(kind))?.[1] ?? 'e1000'
  return /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(address) && (Number.parseInt(address.slice(0, 2), 16) & 1) === 0
    ? { model, macaddr: address.toUpperCase() }
    : { model }
}

function scsiModel(kind: string | undefined): string | undefined {
  if (kind === undefined) return undefined
  if (/virtualscsi|pvscsi/i.test(kind)) return 'pvscsi'
  if (/lsilogicsas|lsisas/i.test(kind)) return 'megasas'
  if (/lsilogic|buslogic/i.test(kind)) return 'lsi'
  return /virtio/i.test(kind) ? 'virtio-scsi-pci' : undefined
}

/** A setting beside the standard, as one maker writes them. */
function configOf(hardware: XmlElement | undefined, key: string): string | undefined {
  const settings = ['Config', 'ExtraConfig'].flatMap((name) => childrenOf(hardware, name))
  const found = settings.find((one) => attributeOf(one, 'key') === key)
  return found && attributeOf(found, 'value')?.toLowerCase()
}

const windows: readonly (readonly [RegExp, string])[] = [
  [/windows ?(11|12)|windows2(022|025)|server 20(22|25)/i, 'win11'],
  [/windows ?(9|10)|windows2019|windows20(16|19)|server 20(16|19)/i, 'win10'],
  [/windows ?8|server 2012/i, 'win8'],
  [/windows ?7|server 2008 r2/i, 'win7'],
  [/vista|longhorn|server 2008/i, 'w2k8'],
  [/xp|server 2003|winnet/i, 'wxp'],
]
const linux = /linux|debian|ubuntu|centos|rhel|red ?hat|fedora|suse|sles|oracle|rocky|alma|gentoo|arch/i

function osTypeOf(system: XmlElement): string | undefined {
  const section = childrenOf(system, 'OperatingSystemSection')[0]
  if (!section) return undefined
  const said = `${attributeOf(section, 'osType') ?? ''} ${textOf(section, 'Description') ?? ''}`
  if (linux.test(said)) return 'l26'
  if (/solaris/i.test(said)) return 'solaris'
  if (/win/i.test(said)) return windows.find(([pattern]) => pattern.test(said))?.[1] ?? 'other'
  return 'other'
}

/** A name a guest can have. */
function nameOf(text: string | undefined): string | undefined {
  const labels = (text ?? '')
    .split('.')
    .map((label) => label.replaceAll(/[^a-zA-Z0-9-]+/g, '-').replaceAll(/^-+|-+$/g, ''))
  const name = labels
    .map((label) => label.slice(0, 63))
    .filter(Boolean)
    .join('.')
  return name === '' || name.length > 253 ? undefined : name
}

function printable(text: string): string {
  return text.slice(0, 200).replaceAll(/[^\x20-\x7e]/g, '?')
}
