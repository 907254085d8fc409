/** What is wrong with a mapping on this node, by what is plugged in here now. */
import { stat } from 'node:fs/promises'
import { entriesOf, type MapEntry, type Mapping, type MappingKind } from '#cluster/mappings.ts'
import { pciDevices, usbDevices } from '#host/system/devices.ts'

export interface MappingCheck {
  readonly severity: 'warning' | 'error'
  readonly message: string
}

export async function checkMapping(kind: MappingKind, { map }: Mapping, node: string): Promise<MappingCheck[]> {
  const entries = entriesOf(kind, map).filter((entry) => entry.node === node)
  if (entries.length === 0) return [{ severity: 'warning', message: `No mapping for node ${node}.` }]
  const complaints = await Promise.all(entries.map((entry) => complaintAbout[kind](entry)))
  return complaints.filter((text) => text !== undefined).map((message) => ({ severity: 'error', message }))
}

const complaintAbout: Readonly<Record<MappingKind, (entry: MapEntry) => Promise<string | undefined>>> = {
  async pci({ path, id, iommugroup }) {
    const devices = await pciDevices()
    for (const address of String(path).split(';')) {
      const found = devices.find((device) => device.id === address || device.id.startsWith(`${address}.`))
      if (!found) return `there is no PCI device '${address}'`
      const real = `${plain(found.vendor)}:${plain(found.device)}`
      if (real !== String(id).toLowerCase()) return `'id' does not match for '${address}': it is ${real}, not ${id}`
      if (iommugroup !== undefined && iommugroup !== found.iommuGroup) {
        return `'iommugroup' does not match for '${address}': it is ${found.iommuGroup}, not ${iommugroup}`
      }
    }
    return undefined
  },
  async usb({ path, id }) {
    const [vendor, product] = String(id).toLowerCase().split(':')
    const devices = await usbDevices()
    const at = path === undefined ? devices : devices.filter((one) => `${one.bus}-${one.path}` === path)
    if (path !== undefined && at.length === 0) return `there is no USB device at '${path}'`
    if (at.some((one) => one.vendor === vendor && one.product === product)) return undefined
    return path === undefined ? `there is no USB device '${id}'` : `the USB device at '${path}' is not '${id}'`
  },
  async dir({ path }) {
    const facts = await stat(String(path)).catch(() => undefined)
    if (!facts) return `the directory '${path}' does not exist`
    return facts.isDirectory() ? undefined : `'${path}' is no directory`
  },
}

const plain = (number: string) => number.replace(/^0x/, '').toLowerCase()
