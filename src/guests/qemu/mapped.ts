/** Which parts of the node a guest has by a name the owner of the cluster gave: devices and folders. */
import { readPropertyString } from '#base/schema/property-string.ts'
import { hostpciFormat } from './hostpci.ts'
import { usbFormat } from './usb.ts'
import { folderFormat } from './virtiofs.ts'

const kinds = {
  usb: { kind: 'usb', format: usbFormat, key: 'mapping' },
  hostpci: { kind: 'pci', format: hostpciFormat, key: 'mapping' },
  virtiofs: { kind: 'dir', format: folderFormat, key: 'dirid' },
} as const

/** The mapping an option uses; undefined when it uses none. */
export function mappingOf(name: string, text: string): { readonly kind: string; readonly mapping: string } | undefined {
  const [, family = ''] = /^(usb|hostpci|virtiofs)\d+$/.exec(name) ?? []
  if (family !== 'usb' && family !== 'hostpci' && family !== 'virtiofs') return undefined
  const { kind, format, key } = kinds[family]
  const mapping = readPropertyString(format, text, name)[key]
  return mapping === undefined ? undefined : { kind, mapping: String(mapping) }
}
