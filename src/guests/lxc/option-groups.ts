/**
 * The options of a container's configuration, grouped by the right that changing one takes.
 *
 * Proxmox VE's grouping, because roles made for it must mean the same here.
 */
import { boolean, enumOf, indexed, integer, number, optional, propertyString, string } from '#base/schema/schema.ts'
import { unusedCount } from '../kept-volumes.ts'
import { deviceCount, deviceFormat } from './device.ts'
import { featuresFormat } from './features.ts'
import { mountCount, mountFormat, rootfsFormat, unusedFormat } from './mountpoint.ts'
import { nicCount, nicFormat } from './nic.ts'

const osTypes = 'debian devuan ubuntu centos fedora opensuse archlinux alpine gentoo nixos unmanaged'.split(' ')
const locks = 'backup create destroyed disk fstrim migrate mounted rollback snapshot snapshot-delete'.split(' ')
const architectures = 'amd64 i386 arm64 armhf riscv32 riscv64'.split(' ')

export const cpuOptions = {
  cores: optional(integer({ description: 'Processors it sees; all when absent.', minimum: 1, maximum: 8192 })),
  cpulimit: optional(
    number({ description: 'Processors’ worth of time at most; 0 is no limit.', default: 0, minimum: 0, maximum: 8192 }),
  ),
  cpuunits: optional(
    integer({ description: 'Share of processor time against other guests.', minimum: 0, maximum: 500_000 }),
  ),
} as const

export const memoryOptions = {
  memory: optional(integer({ description: 'Memory in MiB.', default: 512, minimum: 16, maximum: 67_108_864 })),
  swap: optional(integer({ description: 'Swap space in MiB.', default: 512, minimum: 0, maximum: 67_108_864 })),
} as const

export const networkOptions = {
  hostname: optional(string({ description: 'Name.', format: 'dns-name', maxLength: 255 })),
  nameserver: optional(
    string({
      description: 'Name servers; those of the node when absent.',
      format: 'lxc-ip-with-ll-iface-list',
      maxLength: 512,
    }),
  ),
  searchdomain: optional(
    string({ description: 'Domains to look names up in.', format: 'dns-name-list', maxLength: 512 }),
  ),
  ...indexed('net', nicCount, propertyString(nicFormat, { description: 'Network card.', maxLength: 1024 })),
} as const

export const diskOptions = {
  rootfs: optional(propertyString(rootfsFormat, { description: 'Root file system.', maxLength: 4096 })),
  ...indexed('mp', mountCount, propertyString(mountFormat, { description: 'Mount point.', maxLength: 4096 })),
  ...indexed(
    'unused',
    unusedCount,
    propertyString(unusedFormat, { description: 'Volume of the guest that is not mounted.', maxLength: 1024 }),
  ),
} as const

// oxlint-disable-next-line no-control-regex -- they would end the line of a file.
const noControl = /[^\u0000-\u0008\u000a-\u001f\u007f]+/
// oxlint-disable-next-line no-control-regex -- NUL parts one variable from the next.
const variables = /\w+=[^\u0000-\u0008\u000a-\u001f\u007f]*(?:\u0000\w+=[^\u0000-\u0008\u000a-\u001f\u007f]*)*/

export const generalOptions = {
  arch: optional(enumOf(architectures, { description: 'Architecture.', default: 'amd64' })),
  cmode: optional(enumOf(['shell', 'console', 'tty'], { description: 'What a console is joined to.', default: 'tty' })),
  console: optional(boolean({ description: 'It has a console.', default: true })),
  debug: optional(boolean({ description: 'Tell more of a start.', default: false })),
  description: optional(string({ description: 'Notes.', maxLength: 8192 })),
  entrypoint: optional(
    string({ description: 'Command it runs.', default: '/sbin/init', pattern: noControl, maxLength: 4096 }),
  ),
  env: optional(string({ description: 'Its environment, parted by NUL.', pattern: variables, maxLength: 32_768 })),
  features: optional(
    propertyString(featuresFormat, { description: 'What it may beyond the ordinary.', maxLength: 512 }),
  ),
  onboot: optional(boolean({ description: 'Start with the node.', default: false })),
  ostype: optional(enumOf(osTypes, { description: 'Family of its system; unmanaged is left alone.' })),
  protection: optional(boolean({ description: 'Refuse to destroy the guest or its volumes.', default: false })),
  startup: optional(
    string({ description: 'Order of starting: order=N,up=N,down=N.', format: 'pve-startup-order', maxLength: 64 }),
  ),
  tags: optional(string({ description: 'Tags.', format: 'pve-tag-list', maxLength: 1024 })),
  timezone: optional(
    string({ description: 'Time zone; host is that of the node.', format: 'pve-ct-timezone', maxLength: 64 }),
  ),
  tty: optional(integer({ description: 'Terminals.', default: 2, minimum: 0, maximum: 6 })),
} as const

/** Options only root may set, because they reach past the guest. */
export const rootOptions = {
  ...indexed('dev', deviceCount, propertyString(deviceFormat, { description: 'Device of the node.', maxLength: 512 })),
  hookscript: optional(
    string({ description: 'Snippet run around start and stop.', format: 'pve-volume-id', maxLength: 1024 }),
  ),
  lock: optional(enumOf(locks, { description: 'Lock or unlock the guest.' })),
} as const
