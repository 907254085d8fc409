/** PCI devices of the node in a guest: what is asked for. Whether the machine can do it is seen when the guest starts. */
import type { Errors } from '#base/schema/check.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'

export const hostpciCount = 16

const address = '(?:[0-9A-Fa-f]{4,}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}(?:\\.[0-9A-Fa-f])?'
const numbers = (description: string) => ({ schema: optional(string({ description, pattern: /0x[0-9A-Fa-f]{1,4}/ })) })
const flag = (description: string) => ({ schema: optional(boolean({ description })) })

export const hostpciFormat: PropertyFormat = {
  host: {
    schema: optional(
      string({
        description: 'Addresses, separated by `;`.',
        pattern: new RegExp(`${address}(?:;${address})*`),
        maxLength: 400,
      }),
    ),
    isDefaultKey: true,
  },
  mapping: { schema: optional(string({ description: 'Name of a mapping.', format: 'pve-configid', maxLength: 64 })) },
  'device-id': numbers('Number of the device the guest sees.'),
  'vendor-id': numbers('Number of the vendor the guest sees.'),
  'sub-device-id': numbers('Number of the card the guest sees.'),
  'sub-vendor-id': numbers('Number of its vendor.'),
  driver: { schema: optional(string({ description: 'Driver of the node.', pattern: /vfio|keep/ })) },
  'legacy-igd': flag('As the display of old processors.'),
  mdev: { schema: optional(string({ description: 'Kind of part to split off.', pattern: /[^/.:,]+/, maxLength: 64 })) },
  pcie: flag('On a PCI Express port.'),
  rombar: flag('Show its ROM.'),
  romfile: { schema: optional(string({ description: 'Another ROM.', pattern: /[^,;]+/, maxLength: 200 })) },
  'x-vga': flag('It is the display.'),
}

export interface HostpciOption {
  readonly name: string
  /** Addresses, or the name of a mapping. */
  readonly host: readonly string[]
  readonly mapping: string | undefined
}

export function hostpcisOf(options: Options): HostpciOption[] {
  return Array.from({ length: hostpciCount }, (_, index) => `hostpci${index}`)
    .filter((name) => options[name] !== undefined)
    .map((name) => {
      const { host, mapping } = readPropertyString(hostpciFormat, options[name] ?? '', name)
      return {
        name,
        host: host === undefined ? [] : String(host).split(';'),
        mapping: mapping === undefined ? undefined : String(mapping),
      }
    })
}

/** True for a text that names a real device of the node: root alone may do that. */
export function namesRealPci(name: string, text: string): boolean {
  return readPropertyString(hostpciFormat, text, name).host !== undefined
}

export function hostpciErrors(options: Options): Errors {
  const wrong = hostpcisOf(options).filter(({ host, mapping }) => (host.length === 0) === (mapping === undefined))
  return Object.fromEntries(wrong.map(({ name }) => [name, "either 'host' or 'mapping' is needed"]))
}
