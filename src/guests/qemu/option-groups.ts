/**
 * The options of a virtual machine's configuration, grouped by the right that changing one takes.
 *
 * Proxmox VE's grouping, because roles made for it must mean the same here.
 */
import { boolean, enumOf, indexed, integer, number, optional, propertyString, string } from '#base/schema/schema.ts'
import { unusedCount } from '../kept-volumes.ts'
import { agentFormat } from './agent.ts'
import { audioFormat } from './audio.ts'
import { bootFormat } from './boot.ts'
import { sevFormat, tdxFormat } from './confidential.ts'
import { cpuFormat } from './cpu.ts'
import { driveFormat } from './drive-format.ts'
import { unusedFormat } from './drive.ts'
import { hostpciCount, hostpciFormat } from './hostpci.ts'
import { ivshmemFormat } from './ivshmem.ts'
import { machineFormat } from './machine.ts'
import { memoryFormat } from './memory.ts'
import { nicCount, nicFormat } from './nic.ts'
import { numaCount, numaFormat } from './numa.ts'
import { rngFormat } from './rng.ts'
import { parallelCount, serialCount } from './serial.ts'
import { smbiosFormat, vmgenidPattern } from './smbios.ts'
import { spiceFormat } from './spice.ts'
import { usbCount, usbFormat } from './usb.ts'
import { vgaFormat } from './vga.ts'
import { folderCount, folderFormat } from './virtiofs.ts'
import { watchdogFormat } from './watchdog.ts'

const osTypes = 'other wxp w2k w2k3 w2k8 wvista win7 win8 win10 win11 l24 l26 solaris'.split(' ')
const keyboards =
  'de de-ch da en-gb en-us es fi fr fr-be fr-ca fr-ch hu is it ja lt mk nl no pl pt pt-br sv sl tr'.split(' ')
const locks = 'backup clone create migrate rollback snapshot snapshot-delete suspending suspended'.split(' ')

export const cpuOptions = {
  cores: optional(integer({ description: 'Cores per socket.', default: 1, minimum: 1, maximum: 255 })),
  sockets: optional(integer({ description: 'Processor sockets.', default: 1, minimum: 1, maximum: 255 })),
  smp: optional(integer({ description: 'Old spelling of sockets.', default: 1, minimum: 1, maximum: 255 })),
  vcpus: optional(integer({ description: 'Processors plugged at start.', minimum: 1, maximum: 255 })),
  cpu: optional(propertyString(cpuFormat, { description: 'Processor model and flags.', maxLength: 1024 })),
  numa: optional(boolean({ description: 'Show each socket as a memory node.', default: false })),
  ...indexed('numa', numaCount, propertyString(numaFormat, { description: 'A memory node.', maxLength: 1024 })),
  cpulimit: optional(
    number({ description: 'Processors’ worth of time at most; 0 is no limit.', default: 0, minimum: 0, maximum: 128 }),
  ),
  cpuunits: optional(
    integer({ description: 'Share of processor time against other guests.', minimum: 1, maximum: 262_144 }),
  ),
} as const

export const memoryOptions = {
  memory: optional(propertyString(memoryFormat, { description: 'Memory in MiB.', maxLength: 64 })),
  balloon: optional(
    integer({ description: 'Least memory in MiB; 0 switches the balloon off.', minimum: 0, maximum: 4_178_944 }),
  ),
  'allow-ksm': optional(boolean({ description: 'The node may merge equal pages.', default: true })),
  shares: optional(
    integer({ description: 'Share of memory when ballooning.', default: 1000, minimum: 0, maximum: 50_000 }),
  ),
} as const

export const networkOptions = indexed(
  'net',
  nicCount,
  propertyString(nicFormat, { description: 'Network card.', maxLength: 1024 }),
)

const drive = { description: 'Disk or cdrom drive.', maxLength: 4096 }
export const diskOptions = {
  ...indexed('scsi', 31, propertyString(driveFormat('scsi'), drive)),
  ...indexed('virtio', 16, propertyString(driveFormat('virtio'), drive)),
  ...indexed('ide', 4, propertyString(driveFormat('ide'), drive)),
  ...indexed('sata', 6, propertyString(driveFormat('sata'), drive)),
  ...indexed(
    'unused',
    unusedCount,
    propertyString(unusedFormat, { description: 'Volume of the guest no drive uses.', maxLength: 1024 }),
  ),
  ...indexed(
    'virtiofs',
    folderCount,
    propertyString(folderFormat, { description: 'Folder of the node, by its directory mapping.', maxLength: 256 }),
  ),
  efidisk0: optional(
    propertyString(driveFormat('efidisk'), { description: 'Variables of the UEFI firmware.', maxLength: 4096 }),
  ),
  tpmstate0: optional(propertyString(driveFormat('tpmstate'), { description: 'State of the TPM.', maxLength: 4096 })),
  boot: optional(propertyString(bootFormat, { description: 'Devices to boot from, best first.', maxLength: 1024 })),
  bootdisk: optional(
    string({
      description: 'Old spelling of the first disk to boot from.',
      pattern: /(?:ide|sata|scsi|virtio)\d+/,
      maxLength: 16,
    }),
  ),
  vmstatestorage: optional(
    string({
      description: 'Storage for the memory of snapshots; else it goes into the first disk.',
      format: 'pve-storage-id',
      maxLength: 64,
    }),
  ),
  cdrom: optional(string({ description: 'Old spelling of ide2.', maxLength: 1024 })),
} as const

export const hardwareOptions = {
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
  arch: optional(enumOf(['x86_64', 'aarch64'], { description: 'Architecture.' })),
  'amd-sev': optional(
    propertyString(sevFormat, { description: 'Memory the node cannot read, by AMD’s processors.', maxLength: 256 }),
  ),
  'intel-tdx': optional(
    propertyString(tdxFormat, { description: 'Memory the node cannot read, by Intel’s processors.', maxLength: 256 }),
  ),
  audio0: optional(propertyString(audioFormat, { description: 'Sound card.', maxLength: 256 })),
  ...indexed('usb', usbCount, propertyString(usbFormat, { description: 'USB device of the node.', maxLength: 256 })),
  ...indexed(
    'hostpci',
    hostpciCount,
    propertyString(hostpciFormat, { description: 'PCI device of the node.', maxLength: 1024 }),
  ),
  ...indexed(
    'serial',
    serialCount,
    string({ description: 'Serial port: `socket`.', pattern: /\/dev\/[^,]+|socket/, maxLength: 256 }),
  ),
} as const

export const generalOptions = {
  name: optional(string({ description: 'Name.', format: 'dns-name', maxLength: 253 })),
  description: optional(string({ description: 'Notes.', maxLength: 8192 })),
  tags: optional(string({ description: 'Tags.', format: 'pve-tag-list', maxLength: 1024 })),
  agent: optional(propertyString(agentFormat, { description: 'Guest agent.', maxLength: 256 })),
  bios: optional(enumOf(['seabios', 'ovmf'], { description: 'Firmware.', default: 'seabios' })),
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
  spice_enhancements: optional(
    propertyString(spiceFormat, { description: 'What viewers by SPICE get beside the screen.', maxLength: 256 }),
  ),
  migrate_downtime: optional(
    number({ description: 'Longest pause in seconds when migrating.', default: 0.1, minimum: 0, maximum: 3600 }),
  ),
  migrate_speed: optional(
    integer({ description: 'MB per second when migrating; 0 is no limit.', default: 0, minimum: 0, maximum: 1e9 }),
  ),
} as const

/** Options of a guest's power. */
export const powerOptions = {
  freeze: optional(boolean({ description: 'Start with halted processors.' })),
} as const

/** Options only root may set, because they reach past the guest. */
export const rootOptions = {
  affinity: optional(
    string({ description: 'Processors of the node it may run on: `0,5,8-11`.', format: 'pve-cpuset', maxLength: 1024 }),
  ),
  hugepages: optional(enumOf(['any', '2', '1024'], { description: 'Use huge pages, of that many MiB.' })),
  keephugepages: optional(
    boolean({ description: 'Keep huge pages after the end (the node keeps them in any case).', default: false }),
  ),
  ivshmem: optional(propertyString(ivshmemFormat, { description: 'Memory shared with others.', maxLength: 256 })),
  ...indexed(
    'parallel',
    parallelCount,
    string({
      description: 'Parallel port of the node.',
      pattern: /\/dev\/parport\d+|\/dev\/usb\/lp\d+/,
      maxLength: 64,
    }),
  ),
  args: optional(string({ description: 'Further arguments for QEMU.', maxLength: 4096 })),
  hookscript: optional(
    string({ description: 'Snippet run around start and stop.', format: 'pve-volume-id', maxLength: 1024 }),
  ),
  lock: optional(enumOf(locks, { description: 'Lock or unlock the guest.' })),
} as const
