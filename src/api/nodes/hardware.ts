/** `/nodes/{node}/hardware`: devices of a node that can be given to guests. */
import { array, boolean, integer, object, optional, string } from '#base/schema/schema.ts'
import { splitList } from '#base/schema/formats.ts'
import { nodeName } from '#base/schema/standard.ts'
import { mediatedTypes, pciDevices, pciNames, usbDevices } from '#host/system/devices.ts'
import { anyone, check, checkAny } from '#rest/endpoint.ts'
import { pciItem, usbItem } from '#views/hardware.ts'
import { endpoint } from '../call.ts'

const mayLook = checkAny(['Sys.Audit', 'Sys.Modify'], '/')
const name = (description: string) => optional(string({ description }))
const pciId = string({
  description: 'Address of the device.',
  pattern: /(?:(?:[0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-9a-fA-F])|([a-zA-Z][a-zA-Z0-9_-]+)/,
  maxLength: 128,
})

export const hardwareEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/hardware',
    description: 'Kinds of devices.',
    params: { node: nodeName },
    permission: anyone,
    returns: array(object({ type: string({ description: 'Kind.' }) })),
    handle: () => [{ type: 'pci' }, { type: 'usb' }],
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/hardware/pci',
    description: 'PCI devices of a node.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      'pci-class-blacklist': optional(
        string({
          description: 'Leave out classes that begin so.',
          format: 'string-list',
          maxLength: 256,
          default: '05;06;0b',
        }),
      ),
      verbose: optional(boolean({ description: 'With what is known of each.', default: true })),
    },
    permission: mayLook,
    returns: array(
      object({
        id: string({ description: 'Address.' }),
        class: optional(string({ description: 'Class.' })),
        vendor: optional(string({ description: 'Number of the vendor.' })),
        vendor_name: name('Vendor.'),
        device: optional(string({ description: 'Number of the device.' })),
        device_name: name('Device.'),
        iommugroup: optional(integer({ description: 'Devices of a group go together; -1 without an IOMMU.' })),
        mdev: optional(boolean({ description: 'It can be split.' })),
        subsystem_vendor: name('Number of the vendor of the card.'),
        subsystem_vendor_name: name('Vendor of the card.'),
        subsystem_device: name('Number of the card.'),
        subsystem_device_name: name('Card.'),
      }),
    ),
    cli: {
      command: ['node', 'pci'],
      positional: ['node'],
      columns: ['id', 'class', 'vendor_name', 'device_name', 'iommugroup'],
      id: 'id',
    },
    async handle({ verbose = true, 'pci-class-blacklist': list = '05;06;0b' }) {
      const unwanted = splitList(list).map((prefix) => `0x${prefix.toLowerCase().replace(/^0x/, '')}`)
      const devices = (await pciDevices()).filter((one) => !unwanted.some((prefix) => one.class.startsWith(prefix)))
      const names = await pciNames()
      return devices.map((device) => (verbose ? pciItem(device, names) : { id: device.id }))
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/hardware/pci/{pci-id-or-mapping}',
    description: 'What there is to ask about a PCI device.',
    params: { node: nodeName, 'pci-id-or-mapping': pciId },
    permission: anyone,
    returns: array(object({ method: string({ description: 'Name.' }) })),
    handle: () => [{ method: 'mdev' }],
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/hardware/pci/{pci-id-or-mapping}/mdev',
    description: 'What a PCI device can be split into.',
    proxyTo: 'node',
    params: { node: nodeName, 'pci-id-or-mapping': pciId },
    permission: mayLook,
    returns: array(
      object({
        type: string({ description: 'Kind.' }),
        name: name('Its name.'),
        description: string({ description: 'What it is.' }),
        available: integer({ description: 'How many are left.' }),
      }),
    ),
    handle: ({ 'pci-id-or-mapping': id }) => mediatedTypes(id),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/hardware/usb',
    description: 'USB devices of a node.',
    proxyTo: 'node',
    params: { node: nodeName },
    permission: check('Sys.Modify', '/'),
    returns: array(
      object({
        busnum: integer({ description: 'Bus.' }),
        devnum: integer({ description: 'Device on the bus.' }),
        class: integer({ description: 'Class.' }),
        level: integer({ description: 'Hubs between.' }),
        port: integer({ description: 'Port of the hub.' }),
        usbpath: name('Ports on the way.'),
        vendid: string({ description: 'Number of the vendor.' }),
        prodid: string({ description: 'Number of the product.' }),
        manufacturer: name('Vendor.'),
        product: name('Product.'),
        serial: name('Serial number.'),
        speed: string({ description: 'Mbit per second.' }),
      }),
    ),
    handle: async () => (await usbDevices()).map(usbItem),
  }),
]
