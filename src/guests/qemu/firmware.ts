/**
 * Firmware by UEFI: which of the distribution's builds a guest gets, and where its variables are.
 *
 * The code is read from the package; the variables are a volume of the guest (`efidisk0`), made from the package's
 * template. With system management mode, which q35 has, the guest cannot write to the variables behind the firmware's
 * back, so there the build for secure boot is used. A guest without `efidisk0` gets variables that last until it stops.
 */
import { access } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import type { Options } from '../config.ts'
import { nodeNameOf } from './drive-device.ts'
import type { Drive } from './drive.ts'
import { driveOf } from './drive.ts'
import type { MachineKind } from './machine.ts'

const home = '/usr/share/OVMF'
export const efiDrive = 'efidisk0'
/** Of a guest without `efidisk0`, in its run directory. */
export const passingVariables = 'efivars.fd'

const variablesBytes = { '2m': 128 * 1024, '4m': 528 * 1024 } as const
const suffix = { '2m': '', '4m': '_4M' } as const

function efiTypeOf(drive: Drive | undefined): '2m' | '4m' {
  if (!drive) return '4m'
  return drive.values.efitype === '4m' ? '4m' : '2m'
}

export function efiBytesOf(drive: Drive): number {
  return variablesBytes[efiTypeOf(drive)]
}

/** What a new volume of variables is a copy of. */
export function variablesTemplate(drive: Drive | undefined): string {
  const keys = drive?.values['pre-enrolled-keys'] === true ? '.ms' : ''
  return `${home}/OVMF_VARS${suffix[efiTypeOf(drive)]}${keys}.fd`
}

export function isEfi(options: Options): boolean {
  return options.bios === 'ovmf'
}

function efiDriveOf(options: Options): Drive | undefined {
  const text = options[efiDrive]
  return text === undefined ? undefined : driveOf(efiDrive, text)
}

/** Files to copy into the run directory before the start: name and source. */
export function passingFiles(options: Options): Readonly<Record<string, string>> {
  if (!isEfi(options) || options[efiDrive] !== undefined) return {}
  return { [passingVariables]: variablesTemplate(undefined) }
}

/** @throws Fault `missing` when the package is not installed */
export async function requireFirmware(options: Options): Promise<void> {
  if (!isEfi(options)) return
  const template = variablesTemplate(efiDriveOf(options))
  await access(template).catch((cause: unknown) => {
    throw new Fault('missing', `the firmware '${template}' is not installed`, {
      cause,
      remedy: 'Run `hako doctor` to see which system packages are missing.',
    })
  })
}

export interface Flash {
  /** Properties of the machine. */
  readonly machine: Readonly<Record<string, string | boolean>>
  readonly argv: readonly string[]
}

/** The two flash chips of the firmware. */
export function flashOf(options: Options, kind: MachineKind, runDir: string): Flash {
  if (!isEfi(options)) return { machine: {}, argv: [] }
  const drive = efiDriveOf(options)
  const type = efiTypeOf(drive)
  const isGuarded = kind === 'q35' && (type === '4m' || drive?.values['pre-enrolled-keys'] === true)
  const code = `${home}/OVMF_CODE${suffix[type]}${isGuarded ? '.secboot' : ''}.fd`
  const argv = ['-blockdev', JSON.stringify(fileNode('efi-code', code, { 'read-only': true }))]
  if (!drive) argv.push('-blockdev', JSON.stringify(fileNode(nodeNameOf(efiDrive), `${runDir}/${passingVariables}`)))
  if (isGuarded) argv.push('-global', 'driver=cfi.pflash01,property=secure,value=on')
  return {
    machine: { pflash0: 'efi-code', pflash1: nodeNameOf(efiDrive), ...(isGuarded ? { smm: true } : {}) },
    argv,
  }
}

function fileNode(name: string, filename: string, more: object = {}): object {
  return { driver: 'raw', 'node-name': name, ...more, file: { driver: 'file', filename, ...more } }
}
