/** What names mean on this node, as guests ask for it when they start. */
import type { CpuModels, CpuModelValues } from './cpu-models.ts'
import type { MapEntry, Mappings } from './mappings.ts'

type UsbPlace =
  | { readonly by: 'id'; readonly vendor: string; readonly product: string }
  | {
      readonly by: 'port'
      readonly bus: number
      readonly port: string
      readonly vendor: string
      readonly product: string
    }

/** @param known asked for what it has only when a guest names something */
export function devicesByName(known: { readonly mappings: Mappings; readonly cpuModels: CpuModels }, node: string) {
  return {
    usbMapping: async (name: string) => (await known.mappings.entriesOn('usb', name, node))?.map(usbPlaceOf),
    pciMapping: async (name: string) =>
      (await known.mappings.entriesOn('pci', name, node))?.map(({ path }) => String(path).split(';')),
    directoryMapping: async (name: string) => {
      const [entry] = (await known.mappings.entriesOn('dir', name, node)) ?? []
      return entry && String(entry.path)
    },
    cpuModel: async (name: string): Promise<CpuModelValues | undefined> => (await known.cpuModels.find(name))?.values,
  }
}

function usbPlaceOf({ id, path }: MapEntry): UsbPlace {
  const [vendor = '', product = ''] = String(id).toLowerCase().split(':')
  const [, bus, port] = /^(\d+)-([\d.]+)$/.exec(String(path ?? '')) ?? []
  if (bus === undefined || port === undefined) return { by: 'id', vendor, product }
  return { by: 'port', bus: Number(bus), port, vendor, product }
}
