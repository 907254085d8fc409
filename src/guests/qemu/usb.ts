/**
 * USB devices in a guest. Of the node: by vendor and product, by port, or by a mapping's name, which is looked up when
 * the guest starts. Or of whoever looks at the guest by SPICE.
 */
import type { Errors } from '#base/schema/check.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import type { DeviceSpec } from './argument.ts'
import { device, deviceToArgv, keyed } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'
import { hasSpice } from './vga.ts'

export const usbCount = 14

export const usbFormat: PropertyFormat = {
  host: {
    schema: optional(
      string({
        description: 'Device of the node: `vvvv:pppp`, `bus-port`, or `spice`.',
        pattern: /(?:0x)?[0-9A-Fa-f]{4}:(?:0x)?[0-9A-Fa-f]{4}|\d+-\d+(?:\.\d+)*|[Ss][Pp][Ii][Cc][Ee]/,
        maxLength: 64,
      }),
    ),
    isDefaultKey: true,
  },
  mapping: { schema: optional(string({ description: 'Name of a mapping.', format: 'pve-configid', maxLength: 64 })) },
  usb3: { schema: optional(boolean({ description: 'The device is for USB 3.', default: false })) },
}

/** What a start asks of the node: a kind of device, or the one at a port. */
export type UsbWish =
  | { readonly by: 'id'; readonly vendor: string; readonly product: string }
  | {
      readonly by: 'port'
      readonly bus: number
      readonly port: string
      /** Present: what is at the port must be this. */
      readonly vendor?: string
      readonly product?: string
    }
  | { readonly by: 'mapping'; readonly name: string }

export interface UsbOption {
  readonly name: string
  readonly wish: UsbWish
}

/** A device that was found. */
export interface UsbPlace {
  readonly bus: number
  /** `1.2` */
  readonly port: string
}

export function usbNames(options: Options): string[] {
  return Array.from({ length: usbCount }, (_, index) => `usb${index}`).filter((name) => options[name] !== undefined)
}

export function usbsOf(options: Options): UsbOption[] {
  return usbNames(options).flatMap((name) => {
    const wish = wishIn(options[name] ?? '', name)
    return wish ? [{ name, wish }] : []
  })
}

function wishIn(text: string, name: string): UsbWish | undefined {
  const { host, mapping } = readPropertyString(usbFormat, text, name)
  if (mapping !== undefined) return { by: 'mapping', name: String(mapping) }
  const [, vendor, product] = /^(?:0x)?([0-9a-f]{4}):(?:0x)?([0-9a-f]{4})$/i.exec(String(host)) ?? []
  if (vendor !== undefined && product !== undefined) {
    return { by: 'id', vendor: vendor.toLowerCase(), product: product.toLowerCase() }
  }
  const [, bus, port] = /^(\d+)-([\d.]+)$/.exec(String(host)) ?? []
  return bus === undefined || port === undefined ? undefined : { by: 'port', bus: Number(bus), port }
}

/** True for a text that names a real device of the node: root alone may do that. */
export function namesRealUsb(name: string, text: string): boolean {
  const { host } = readPropertyString(usbFormat, text, name)
  return host !== undefined && !isSpice(host)
}

/** A port for a device of whoever looks at the guest by SPICE. */
const isSpice = (host: unknown) => /^spice$/i.test(String(host))

/** Those ports, which need nothing of the node. */
export function spiceUsbToArgv(options: Options): string[] {
  return usbNames(options).flatMap((name) => {
    if (!isSpice(readPropertyString(usbFormat, options[name] ?? '', name).host)) return []
    const chardev = `${name}-chardev`
    return [
      '-chardev',
      keyed('spicevmc', { id: chardev, name: 'usbredir' }),
      ...device('usb-redir', { id: name, chardev, ...placeOf(name) }),
    ]
  })
}

const placeOf = (name: string) => ({ bus: 'xhci.0', port: Number(name.slice('usb'.length)) + 1 })

export function usbErrors(options: Options): Errors {
  const errors: Errors = {}
  for (const name of usbNames(options)) {
    const { host, mapping } = readPropertyString(usbFormat, options[name] ?? '', name)
    if ((host === undefined) === (mapping === undefined)) errors[name] = "either 'host' or 'mapping' is needed"
    else if (isSpice(host) && !hasSpice(options)) {
      errors[name] = "'spice' needs a display of SPICE: set vga to 'qxl' or 'virtio', or name a device or a mapping"
    }
  }
  return errors
}

/** The controller all of them are on; it takes every speed. */
export function usbControllerToArgv(options: Options, machine: MachineKind): string[] {
  if (usbNames(options).length === 0) return []
  const properties = { id: 'xhci', p2: 15, p3: 15, ...pciPlace(machine, 'xhci') }
  return deviceToArgv({ driver: 'qemu-xhci', properties })
}

export function usbDevice(name: string, { bus, port }: UsbPlace): DeviceSpec {
  return { driver: 'usb-host', properties: { id: name, ...placeOf(name), hostbus: bus, hostport: port } }
}
