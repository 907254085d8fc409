/**
 * Every option a virtual machine's configuration may have, grouped by the right that changing it takes.
 *
 * One table: parameters of the API, rights, checks and the types of replies all follow from it. An option
 * that is not here does not exist, and is refused by name.
 */
import type { Errors } from '#base/schema/check.ts'
import { checkProperties } from '#base/schema/check.ts'
import { boolean, enumOf, indexed, integer, number, optional, propertyString, string } from '#base/schema/schema.ts'
import type { Properties } from '#base/schema/schema.ts'
import { cloudInitErrors, cloudInitOptions, withoutSecrets } from '../cloud-init/options.ts'
import type { Options } from '../config.ts'
import { agentFormat } from './agent.ts'
import { bootErrors, bootFormat } from './boot.ts'
import { cpuErrors, cpuFormat } from './cpu.ts'
import { driveFormat } from './drive-format.ts'
import { driveErrors, isCdrom, isCloudInit, unusedCount, unusedFormat } from './drive.ts'
import { machineErrors, machineFormat } from './machine.ts'
import { memoryErrors, memoryFormat } from './memory.ts'
import { nicCount, nicErrors, nicFormat } from './nic.ts'
import { rngFormat } from './rng.ts'
import { serialCount } from './serial.ts'
import { smbiosFormat, vmgenidPattern } from './smbios.ts'
import { vgaErrors, vgaFormat } from './vga.ts'
import { watchdogFormat } from './watchdog.ts'

const osTypes = 'other wxp w2k w2k3 w2k8 wvista win7 win8 win10 win11 l24 l26 solaris'.split(' ')
const keyboards =
  'de de-ch da en-gb en-us es fi fr fr-be fr-ca fr-ch hu is it ja lt mk nl no pl pt pt-br sv sl tr'.split(' ')
const locks = 'backup clone create migrate rollback snapshot snapshot-delete suspending suspended'.split(' ')

const cpuOptions = {
  cores: optional(integer({ description: 'Cores per socket.', default: 1, minimum: 1, maximum: 255 })),
  sockets: optional(integer({ description: 'Processor sockets.', default: 1, minimum: 1, maximum: 255 })),
  smp: optional(integer({ description: 'Old spelling of sockets.', default: 1, minimum: 1, maximum: 255 })),
  vcpus: optional(integer({ description: 'Processors plugged at start.', minimum: 1, maximum: 255 })),
  cpu: optional(propertyString(cpuFormat, { description: 'Processor model and flags.', maxLength: 1024 })),
  numa: optional(boolean({ description: 'Show each socket as a memory node.', default: false })),
  cpulimit: optional(
    number({ description: 'Processors’ worth of time at most; 0 is no limit.', default: 0, minimum: 0, maximum: 128 }),
  ),
  cpuunits: optional(
    integer({ description: 'Share of processor time against other guests.', minimum: 1, maximum: 262_144 }),
  ),
} as const

const memoryOptions = {
  memory: optional(propertyString(memoryFormat, { description: 'Memory in MiB.', maxLength: 64 })),
  balloon: optional(
    integer({ description: 'Least memory in MiB; 0 switches the balloon off.', minimum: 0, maximum: 4_178_944 }),
  ),
  'allow-ksm': optional(boolean({ description: 'The node may merge equal pages.', default: true })),
  shares: optional(
    integer({ description: 'Share of memory when ballooning.', default: 1000, minimum: 0, maximum: 50_000 }),
  ),
} as const

const networkOptions = indexed(
  'net',
  nicCount,
  propertyString(nicFormat, { description: 'Network card.', maxLength: 1024 }),
)

const drive = { description: 'Disk or cdrom drive.', maxLength: 4096 }
const diskOptions = {
  ...indexed('scsi', 31, propertyString(driveFormat('scsi'), drive)),
  ...indexed('virtio', 16, propertyString(driveFormat('virtio'), drive)),
  ...indexed('ide', 4, propertyString(driveFormat('ide'), drive)),
  ...indexed('sata', 6, propertyString(driveFormat('sata'), drive)),
  ...indexed(
    'unused',
    unusedCount,
    propertyString(unusedFormat, { description: 'Volume of the guest no drive uses.', maxLength: 1024 }),
  ),
  boot: optional(propertyString(bootFormat, { description: 'Devices to boot from, best first.', maxLength: 1024 })),
  bootdisk: optional(
    string({
      description: 'Old spelling of the first disk to boot from.',
      pattern: /(?:ide|sata|scsi|virtio)\d+/,
      maxLength: 16,
    }),
  ),
  cdrom: optional(string({ description: 'Old spelling of ide2.', maxLength: 1024 })),
} as const

const hardwareOptions = {
  acpi: optional(boolean({ description: 'Tell the guest about power and devices by ACPI.', default: true })),
  machine: optional(propertyString(machineFormat, { description: 'Chipset and its version.', maxLength: 256 })),
  kvm: optional(boolean({ description: 'Use hardware virtualization where the node can.', default: true })),
  scsihw: optional(
    enumOf(['lsi', 'lsi53c810', 'virtio-scsi-pci', 'virtio-scsi-single', 'megasas', 'pvscsi'], {
      description: 'SCSI controller.',
      default: 'lsi',
    }),
  ),
  smbios1: optional(
    propertyString(smbiosFormat, { description: 'What the firmware says about the machine.', maxLength: 512 }),
  ),
  vmgenid: optional(
    string({
      description: 'Id that changes with each copy; 1 makes one, 0 has none.',
      pattern: vmgenidPattern,
      maxLength: 36,
    }),
  ),
  tablet: optional(boolean({ description: 'Absolute pointer.', default: true })),
  vga: optional(propertyString(vgaFormat, { description: 'Display.', maxLength: 256 })),
  watchdog: optional(propertyString(watchdogFormat, { description: 'Watchdog and what it does.', maxLength: 256 })),
  rng0: optional(propertyString(rngFormat, { description: 'Source of entropy.', maxLength: 256 })),
  hotplug: optional(
    string({
      description: 'Kinds of devices that may come and go live.',
      default: 'network,disk,usb',
      pattern: /[a-z0-9,; ]*/,
      maxLength: 128,
    }),
  ),
  ...indexed(
    'serial',
    serialCount,
    string({ description: 'Serial port: `socket`.', pattern: /\/dev\/[^,]+|socket/, maxLength: 256 }),
  ),
} as const

const generalOptions = {
  name: optional(string({ description: 'Name.', format: 'dns-name', maxLength: 253 })),
  description: optional(string({ description: 'Notes.', maxLength: 8192 })),
  tags: optional(string({ description: 'Tags.', format: 'pve-tag-list', maxLength: 1024 })),
  agent: optional(propertyString(agentFormat, { description: 'Guest agent.', maxLength: 256 })),
  bios: optional(enumOf(['seabios', 'ovmf'], { description: 'Firmware.', default: 'seabios' })),
  freeze: optional(boolean({ description: 'Start with halted processors.' })),
  keyboard: optional(enumOf(keyboards, { description: 'Keyboard layout of the remote screen.' })),
  localtime: optional(boolean({ description: 'The hardware clock counts local time.' })),
  startdate: optional(
    string({
      description: 'Date the hardware clock starts with.',
      default: 'now',
      pattern: /now|\d{4}-\d{1,2}-\d{1,2}(?:T\d{1,2}:\d{1,2}:\d{1,2})?/,
      maxLength: 32,
    }),
  ),
  tdf: optional(boolean({ description: 'Catch up with lost clock ticks.', default: false })),
  onboot: optional(boolean({ description: 'Start with the node.', default: false })),
  startup: optional(
    string({ description: 'Order of starting: order=N,up=N,down=N.', format: 'pve-startup-order', maxLength: 64 }),
  ),
  ostype: optional(enumOf(osTypes, { description: 'Operating system.', default: 'other' })),
  protection: optional(boolean({ description: 'Refuse to destroy the guest or its disks.', default: false })),
  reboot: optional(boolean({ description: 'Off: a reboot of the guest stops it.', default: true })),
  autostart: optional(boolean({ description: 'Restart after a crash (ignored).', default: false })),
  migrate_downtime: optional(
    number({ description: 'Longest pause in seconds when migrating.', default: 0.1, minimum: 0, maximum: 3600 }),
  ),
  migrate_speed: optional(
    integer({ description: 'MB per second when migrating; 0 is no limit.', default: 0, minimum: 0, maximum: 1e9 }),
  ),
} as const

/** Options only root may set, because they reach past the guest. */
const rootOptions = {
  args: optional(string({ description: 'Further arguments for QEMU.', maxLength: 4096 })),
  hookscript: optional(
    string({ description: 'Snippet run around start and stop.', format: 'pve-volume-id', maxLength: 1024 }),
  ),
  lock: optional(enumOf(locks, { description: 'Lock or unlock the guest.' })),
} as const

/** Parameters of create and of configuration changes. */
export const optionParams = {
  ...cpuOptions,
  ...memoryOptions,
  ...networkOptions,
  ...diskOptions,
  ...hardwareOptions,
  ...generalOptions,
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
  return Object.hasOwn(rootOptions, name) || (/^serial\d$/.test(name) && value !== undefined && value !== 'socket')
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
  return Object.fromEntries(
    Object.entries(params).flatMap(([name, value]) => {
      if (!Object.hasOwn(optionParams, name) || value === undefined || value === null) return []
      return [[name, textOf(value)]]
    }),
  )
}

function textOf(value: unknown): string {
  if (typeof value === 'boolean') return value ? '1' : '0'
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** A stored configuration as a reply: numbers and booleans by their schema, the rest text, and no password. */
export function optionsToReply(options: Options): Record<string, string | number | boolean> {
  return Object.fromEntries(
    Object.entries(withoutSecrets(options)).map(([name, text]) => {
      const type = knownOptions[name]?.type
      if (type === 'integer' || type === 'number') return [name, Number(text)]
      return [name, type === 'boolean' ? text === '1' : text]
    }),
  )
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
    ...cloudInitErrors(options),
  }
}
