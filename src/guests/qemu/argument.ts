/**
 * How QEMU reads `a,b=c,d=e`: a comma inside a value is written twice. Every argument of that shape is
 * built here, so that a text a user chose can never add a property of its own.
 */
export type PropertyBag = Readonly<Record<string, string | number | boolean | undefined>>

/** `virtio-net-pci,netdev=net0,id=net0`; absent values vanish, booleans become `on` and `off`. */
export function keyed(first: string, properties: PropertyBag = {}): string {
  const parts = [escape(first)]
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined) continue
    parts.push(`${key}=${escape(typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value))}`)
  }
  return parts.filter(Boolean).join(',')
}

/** A device before it is said how: on the command line of a start, or to a QEMU that runs. */
export interface DeviceSpec {
  readonly driver: string
  readonly properties: PropertyBag
}

/** `-device driver,…` */
export function device(driver: string, properties: PropertyBag): string[] {
  return ['-device', keyed(driver, properties)]
}

export function deviceToArgv({ driver, properties }: DeviceSpec): string[] {
  return device(driver, properties)
}

/** Arguments of QMP `device_add`; absent values vanish. */
export function deviceToCommand({ driver, properties }: DeviceSpec): Record<string, string | number | boolean> {
  const given = Object.entries(properties).filter((entry): entry is [string, string | number | boolean] => {
    return entry[1] !== undefined
  })
  return { driver, ...Object.fromEntries(given) }
}

function escape(text: string): string {
  return text.replaceAll(',', ',,')
}
