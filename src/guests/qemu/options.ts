/**
 * Every option a virtual machine's configuration may have.
 *
 * One table: parameters of the API, rights, checks and the types of replies all follow from it. An option
 * that is not there does not exist, and is refused by name.
 */
import type { Errors } from '#base/schema/check.ts'
import { checkProperties } from '#base/schema/check.ts'
import { boolean, optional, string } from '#base/schema/schema.ts'
import type { Properties } from '#base/schema/schema.ts'
import { cloudInitErrors, cloudInitOptions, withoutSecrets } from '../cloud-init/options.ts'
import type { Options } from '../config.ts'
import { textsFrom, valuesOf } from '../option-text.ts'
import { bootErrors } from './boot.ts'
import { cpuErrors } from './cpu.ts'
import { driveErrors, isCdrom, isCloudInit } from './drive.ts'
import { hostpciErrors, namesRealPci } from './hostpci.ts'
import { hotplugError } from './hotplug-kinds.ts'
import { ivshmemError } from './ivshmem.ts'
import { machineErrors } from './machine.ts'
import { memoryErrors } from './memory.ts'
import { nicErrors } from './nic.ts'
import { numaErrors } from './numa.ts'
import {
  cpuOptions,
  diskOptions,
  generalOptions,
  hardwareOptions,
  memoryOptions,
  networkOptions,
  powerOptions,
  rootOptions,
} from './option-groups.ts'
import { namesRealUsb, usbErrors } from './usb.ts'
import { vgaErrors } from './vga.ts'
import { folderErrors } from './virtiofs.ts'

/** Parameters of create and of configuration changes. */
export const optionParams = {
  ...cpuOptions,
  ...memoryOptions,
  ...networkOptions,
  ...diskOptions,
  ...hardwareOptions,
  ...generalOptions,
  ...powerOptions,
  ...cloudInitOptions,
  ...rootOptions,
} as const

/** Options the server writes and clients read. */
export const serverOptions = {
  template: optional(boolean({ description: 'The guest is a template.', default: false })),
  parent: optional(string({ description: 'Snapshot the guest goes on from.', format: 'pve-configid', maxLength: 40 })),
  meta: optional(string({ description: 'How and when the guest was made.', maxLength: 256 })),
} as const

const knownOptions: Properties = { ...optionParams, ...serverOptions }

const groups: readonly (readonly [string, Properties])[] = [
  ['VM.Config.CPU', cpuOptions],
  ['VM.Config.Memory', memoryOptions],
  ['VM.Config.Network', networkOptions],
  ['VM.Config.Disk', diskOptions],
  ['VM.Config.HWType', hardwareOptions],
  ['VM.Config.Options', generalOptions],
  ['VM.PowerMgmt', powerOptions],
  ['VM.Config.Cloudinit', cloudInitOptions],
]

/** The privilege on `/vms/{vmid}` that setting the option to this value takes; undefined for root's own. */
export function privilegeFor(name: string, value: string | undefined): string | undefined {
  if (value !== undefined && isCloudInit(value) && Object.hasOwn(diskOptions, name)) return 'VM.Config.Cloudinit'
  if (value !== undefined && isCdrom(value) && Object.hasOwn(diskOptions, name)) return 'VM.Config.CDROM'
  return groups.find(([, options]) => Object.hasOwn(options, name))?.[0]
}

/** True for options that only root may set to this value. */
export function isRootOnly(name: string, value: string | undefined): boolean {
  if (Object.hasOwn(rootOptions, name)) return true
  if (value === undefined) return false
  if (/^serial\d$/.test(name)) return value !== 'socket'
  if (/^usb\d+$/.test(name)) return namesRealUsb(name, value)
  if (/^hostpci\d+$/.test(name)) return namesRealPci(name, value)
  return name === 'rng0' && value.includes('/dev/hwrng')
}

export function isOption(name: string): boolean {
  return Object.hasOwn(knownOptions, name)
}

/** True for what only the server writes: nobody may set, delete or revert it. */
export function isServerOption(name: string): boolean {
  return Object.hasOwn(serverOptions, name)
}

/** Checked parameters as configuration text; what is no option is left out. */
export function optionsFrom(params: Readonly<Record<string, unknown>>): Options {
  return textsFrom(params, optionParams)
}

/** A stored configuration as a reply: numbers and booleans by their schema, the rest text, and no password. */
export function optionsToReply(options: Options): Record<string, string | number | boolean> {
  return valuesOf(withoutSecrets(options), knownOptions)
}

/** Every rule the options break, by name: each option by itself, then what must hold between them. */
export function optionErrors(options: Options): Errors {
  const checked = checkProperties(knownOptions, options)
  if (!checked.ok) return checked.errors
  return {
    ...machineErrors(options),
    ...cpuErrors(options),
    ...memoryErrors(options),
    ...driveErrors(options),
    ...nicErrors(options),
    ...vgaErrors(options),
    ...bootErrors(options),
    ...numaErrors(options),
    ...usbErrors(options),
    ...hostpciErrors(options),
    ...folderErrors(options),
    ...given('hotplug', hotplugError(options)),
    ...given('ivshmem', ivshmemError(options)),
    ...cloudInitErrors(options),
  }
}

function given(name: string, complaint: string | undefined): Errors {
  return complaint === undefined ? {} : { [name]: complaint }
}
