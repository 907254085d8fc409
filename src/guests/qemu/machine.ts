/** The machine: chipset, accelerator, clock, firmware identity. */
import type { Errors } from '#base/schema/check.ts'
import { printPropertyString, readPropertyString } from '#base/schema/property-string.ts'
import { boolean, enumOf, number, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { isOn } from '../config.ts'
import { keyed, type PropertyBag } from './argument.ts'

export type MachineKind = 'q35' | 'pc'
export type Accelerator = 'kvm' | 'tcg'

export const machineFormat: PropertyFormat = {
  type: {
    schema: optional(
      string({
        description: 'Chipset, with a version to pin it: `q35`, `pc`, `pc-q35-7.2`.',
        maxLength: 40,
        pattern: /q35|pc|pc-(?:(?:i440fx|q35)-)?\d+(?:\.\d+)+(?:\+pve\d+)?(?:\.pxe)?/,
      }),
    ),
    isDefaultKey: true,
  },
  'enable-s3': { schema: optional(boolean({ description: 'Offer suspend to memory.' })) },
  'enable-s4': { schema: optional(boolean({ description: 'Offer suspend to disk.' })) },
  viommu: { schema: optional(enumOf(['intel', 'virtio'])) },
  'aw-bits': { schema: optional(number({ minimum: 32, maximum: 64 })) },
}

/** Operating systems whose hardware clock counts local time. */
const localTimeSystems = /^(w2k|w2k3|w2k8|wxp|wvista|win\d+)$/

/** Which family of places and buses the guest has. */
export function machineKindOf(options: Options): MachineKind {
  const type = machineTypeOf(options)
  return type.startsWith('pc') && !type.startsWith('pc-q35') ? 'pc' : 'q35'
}

function machineTypeOf(options: Options): string {
  const text = options.machine
  const type = text === undefined ? undefined : readPropertyString(machineFormat, text, 'machine').type
  return type === undefined ? 'q35' : String(type)
}

/** As QEMU calls it: Proxmox VE marks its own revisions of a type with `+pveN`, and `pc-7.2` is short. */
export function qemuMachineOf(options: Options): string {
  return machineTypeOf(options)
    .replace(/(?:\+pve\d+)?(?:\.pxe)?$/, '')
    .replace(/^pc-(?=\d)/, 'pc-i440fx-')
}

/** The same guest on exactly this machine: `pc-q35-7.2`. */
export function withMachine(options: Options, type: string): Options {
  const values = options.machine === undefined ? {} : readPropertyString(machineFormat, options.machine, 'machine')
  return { ...options, machine: printPropertyString(machineFormat, { ...values, type }) }
}

export function machineErrors(options: Options): Errors {
  const errors: Errors = {}
  if (options.machine !== undefined && readPropertyString(machineFormat, options.machine, 'machine').viommu) {
    errors.machine = "a guest IOMMU ('viommu') is not supported by this release: leave it out"
  }
  if (options.arch !== undefined && options.arch !== 'x86_64') {
    errors.arch = `guests of architecture '${options.arch}' are not supported by this release: leave arch out`
  }
  return errors
}

/** The accelerator a start uses: the machine's, unless the guest asks for none. */
export function acceleratorFor(options: Options, available: Accelerator): Accelerator {
  return isOn(options.kvm, true) ? available : 'tcg'
}

/** @param firmware properties of the machine that say where its firmware is */
export function machineToArgv(options: Options, accelerator: Accelerator, firmware: PropertyBag = {}): string[] {
  const type = qemuMachineOf(options)
  const kind = machineKindOf(options)
  const values = options.machine === undefined ? {} : readPropertyString(machineFormat, options.machine, 'machine')
  const global = kind === 'q35' ? 'ICH9-LPC' : 'PIIX4_PM'
  const merge = isOn(options['allow-ksm'], true) ? {} : { 'mem-merge': false }
  const argv = [
    '-machine',
    keyed(type, { usb: false, vmport: false, acpi: isOn(options.acpi, true), ...merge, ...firmware }),
  ]
  argv.push('-accel', accelerator === 'kvm' ? 'kvm' : 'tcg,thread=multi,tb-size=256')
  argv.push('-global', `${global}.disable_s3=${values['enable-s3'] === true ? 0 : 1}`)
  argv.push('-global', `${global}.disable_s4=${values['enable-s4'] === true ? 0 : 1}`)
  return [...argv, ...clockToArgv(options), ...rebootToArgv(options)]
}

/** Bytes QEMU's translation cache may take beside the guest's memory under `tcg`. */
export const translationCacheMiB = 256

function clockToArgv(options: Options): string[] {
  const isLocal = isOn(options.localtime, localTimeSystems.test(options.ostype ?? ''))
  const start = options.startdate
  const base = start !== undefined && start !== 'now' ? fullDate(start) : isLocal ? 'localtime' : 'utc'
  return ['-rtc', keyed('', { base, driftfix: isOn(options.tdf, false) ? 'slew' : undefined })]
}

/** QEMU wants two digits everywhere: `2026-1-5T7:3:0` is `2026-01-05T07:03:00`. */
function fullDate(text: string): string {
  return text.replace(/\d+/g, (digits) => digits.padStart(2, '0'))
}

function rebootToArgv(options: Options): string[] {
  return isOn(options.reboot, true) ? [] : ['-action', 'reboot=shutdown']
}
