/** Boot order: `order=scsi0;ide2;net0`, or the letters of old configurations (`cdn`). */
import type { Errors } from '#base/schema/check.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { driveNames, isCdrom, isCloudInit, isFirmwareDrive } from './drive.ts'
import { nicNames } from './nic.ts'

export const bootFormat: PropertyFormat = {
  legacy: { schema: optional(string({ pattern: /[acdn]{1,4}/ })), isDefaultKey: true },
  order: {
    schema: optional(
      string({ description: 'Devices, best first: `scsi0;net0`.', pattern: /[a-z]+\d+(?:;[a-z]+\d+)*|/ }),
    ),
  },
}

/** The devices to boot from, best first. */
export function bootOrderOf(options: Options): string[] {
  const values = options.boot === undefined ? {} : readPropertyString(bootFormat, options.boot, 'boot')
  if (typeof values.order === 'string') return values.order.split(';').filter(Boolean)
  const letters = typeof values.legacy === 'string' ? values.legacy : 'cdn'
  return letters.split('').flatMap((letter) => devicesOfLetter(letter, options))
}

function devicesOfLetter(letter: string, options: Options): string[] {
  if (letter === 'c') {
    if (options.bootdisk !== undefined && options[options.bootdisk] !== undefined) return [options.bootdisk]
    return driveNames(options)
      .filter((name) => !isCdrom(options[name] ?? '') && !isFirmwareDrive(name))
      .slice(0, 1)
  }
  if (letter === 'd')
    return driveNames(options)
      .filter((name) => isCdrom(options[name] ?? '') && !isCloudInit(options[name] ?? ''))
      .slice(0, 1)
  return letter === 'n' ? nicNames(options).slice(0, 1) : []
}

/** What a new guest without a boot order gets: first disk, first cdrom, first network card. */
export function defaultBoot(options: Options): string | undefined {
  const order = ['c', 'd', 'n'].flatMap((letter) => devicesOfLetter(letter, options))
  return order.length === 0 ? undefined : `order=${order.join(';')}`
}

/** The boot order once devices that are gone are out of it; as it is when it names none of those, or no devices at all. */
export function bootOfPresent(options: Options): string | undefined {
  const { boot } = options
  if (boot?.includes('order=') !== true) return boot
  const order = bootOrderOf(options)
  const left = order.filter((name) => options[name] !== undefined)
  return left.length === order.length ? boot : `order=${left.join(';')}`
}

export function bootErrors(options: Options): Errors {
  if (options.boot?.includes('order=') !== true) return {}
  const absent = bootOrderOf(options).filter((name) => options[name] === undefined)
  return absent.length === 0 ? {} : { boot: `invalid bootorder: device '${absent[0]}' does not exist` }
}

/** `bootindex` of each device in the order; lower boots first. */
export function bootIndexes(options: Options): ReadonlyMap<string, number> {
  return new Map(bootOrderOf(options).map((name, position) => [name, 100 + position]))
}
