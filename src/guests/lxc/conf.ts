/**
 * A container's configuration as LXC reads it. Pure: whatever the machine says comes in as facts.
 *
 * Nothing is included from elsewhere: what distributions ship as common.conf differs between them, and what a container
 * may do must not. No value can end its line, because no option may hold what ends one.
 */
import type { Options } from '../config.ts'
import { hostnameOf, isOn } from '../config.ts'
import { featuresOf, isUnprivileged } from './features.ts'
import { idMapOf } from './idmap.ts'
import { type Mount, mountsOf } from './mountpoint.ts'
import { type Nic, nicsOf } from './nic.ts'

export interface ContainerFacts {
  readonly vmid: number
  /** Where the root file system is. */
  readonly rootfs: string
  /** Control group of the container, below each controller; LXC makes groups of its own below it. */
  readonly group: string
  readonly cgroupVersion: 'v1' | 'v2'
  /** Files of its control group, with what they are to hold. */
  readonly limits: readonly { readonly file: string; readonly value: string }[]
  /** Processors it is held to: `0,2`. */
  readonly processors?: string | undefined
  /** Program between the end of a container that reboots and its next start. */
  readonly rebootHook: string
  /** Which system calls are refused. */
  readonly seccompFile: string
  /** Where what it says on its console is kept. */
  readonly consoleLog?: string | undefined
  readonly hasAppArmor: boolean
  /** Where lxcfs serves, and what. */
  readonly served: { readonly target: string; readonly files: readonly string[]; readonly processors: string }
  /** Where each mount point is on the node. */
  readonly sources: Readonly<Record<string, string>>
  /** The container's end of the cable of each card. */
  readonly cables: Readonly<Record<string, string>>
  /** Device nodes made for it, by where they are to be inside. */
  readonly devices: readonly {
    readonly source: string
    readonly path: string
    /** Which one it is to the kernel: `c 188:0`. */
    readonly number: string
  }[]
}

export type Line = readonly [key: string, value: string]

/** Character devices everybody may use, as kind, numbers and rights. */
const harmlessDevices = [
  'c *:* m',
  'b *:* m',
  'c 1:3 rwm',
  'c 1:5 rwm',
  'c 1:7 rwm',
  'c 1:8 rwm',
  'c 1:9 rwm',
  'c 5:0 rwm',
  'c 5:1 rwm',
  'c 5:2 rwm',
  'c 136:* rwm',
]
const architectures: Readonly<Record<string, string>> = {
  amd64: 'x86_64',
  i386: 'i686',
  arm64: 'aarch64',
  armhf: 'armhf',
  riscv32: 'riscv32',
  riscv64: 'riscv64',
}

export function containerConf(options: Options, facts: ContainerFacts): string {
  const lines = [
    ...identity(options, facts),
    ...isolation(options, facts),
    ...groups(facts),
    ...mounts(options, facts),
    ...nicsOf(options).flatMap((nic, at) => card(nic, at, facts.cables[nic.name])),
  ]
  return lines.map(([key, value]) => `lxc.${key} = ${value}\n`).join('')
}

/** What is kept of a console that goes on and on; beyond that it begins anew. */
const consoleLogSize = '1MB'

function identity(options: Options, { vmid, rootfs, rebootHook, consoleLog }: ContainerFacts): Line[] {
  const { arch = 'amd64', entrypoint, env, tty } = options
  const isReadOnly = mountsOf(options).some(({ name, values }) => name === 'rootfs' && values.ro === true)
  return [
    ['uts.name', hostnameOf(options, vmid)],
    ['arch', architectures[arch] ?? arch],
    ['rootfs.path', `dir:${rootfs}`],
    ...(isReadOnly ? [['rootfs.options', 'ro'] as const] : []),
    ...(entrypoint === undefined ? [] : [['init.cmd', entrypoint] as const]),
    ['hook.post-stop', rebootHook],
    ...variablesIn(env).map((variable): Line => ['environment', variable]),
    ['tty.max', isOn(options.console, true) ? (tty ?? '2') : '0'],
    ['pty.max', '1024'],
    ...consoleLines(isOn(options.console, true), consoleLog),
  ]
}

function consoleLines(hasConsole: boolean, log: string | undefined): Line[] {
  if (!hasConsole) return [['console.path', 'none']]
  if (log === undefined) return []
  return [
    ['console.logfile', log],
    ['console.size', consoleLogSize],
  ]
}

/** `a=1`, `b=2`, as they are parted by NUL. */
export function variablesIn(env = ''): string[] {
  return env.split('\0').filter(Boolean)
}

function isolation(options: Options, { seccompFile, hasAppArmor, cgroupVersion, devices }: ContainerFacts): Line[] {
  const { nesting, forceRwSys, mount } = featuresOf(options)
  const groupKey = cgroupVersion === 'v1' ? 'cgroup' : 'cgroup2'
  const apparmor: Line[] = hasAppArmor
    ? [
        ['apparmor.profile', 'generated'],
        ['apparmor.allow_nesting', nesting ? '1' : '0'],
        ...mount.map((type): Line => ['apparmor.raw', `mount fstype=${type},`]),
      ]
    : [['apparmor.profile', 'unconfined']]
  const map = idMapOf(options)
  const sys = isUnprivileged(options) ? (forceRwSys ? 'rw' : 'mixed') : 'ro'
  return [
    ...(map ?? []).map(({ kind, inside, outside, count }): Line => [
      'idmap',
      `${kind === 'uid' ? 'u' : 'g'} ${inside} ${outside} ${count}`,
    ]),
    ['mount.auto', `proc:mixed sys:${sys} cgroup:mixed`],
    ['seccomp.profile', seccompFile],
    ...(nesting ? [['seccomp.allow_nesting', '1'] as const] : []),
    ...apparmor,
    // In a user namespace the kernel itself lets nobody use devices that are not given to it.
    ...(map
      ? []
      : privileged(
          groupKey,
          devices.map(({ number }) => `${number} rw`),
        )),
  ]
}

function privileged(groupKey: string, given: readonly string[]): Line[] {
  return [
    ['cap.drop', 'mac_admin mac_override sys_time sys_module sys_rawio'],
    [`${groupKey}.devices.deny`, 'a'],
    ...[...harmlessDevices, ...given].map((device): Line => [`${groupKey}.devices.allow`, device]),
  ]
}

function groups({ group, cgroupVersion, limits, processors }: ContainerFacts): Line[] {
  const key = cgroupVersion === 'v1' ? 'cgroup' : 'cgroup2'
  return [
    ['cgroup.dir.monitor', `${group}/monitor`],
    ['cgroup.dir.monitor.pivot', `${group}/ended`],
    ['cgroup.dir.container', `${group}/container`],
    // One further down, so that no root inside reaches the group that has the limits.
    ['cgroup.dir.container.inner', 'inside'],
    ...limits.map(({ file, value }): Line => [`${key}.${file}`, value]),
    ...(processors === undefined ? [] : [[`${key}.cpuset.cpus`, processors] as const]),
  ]
}

/** Blanks and backslashes as in fstab. */
function escaped(path: string): string {
  return path.replaceAll(/[\\ \t]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`)
}

function mounts(options: Options, { served, sources, devices }: ContainerFacts): Line[] {
  const { nesting, fuse } = featuresOf(options)
  const bound = (source: string, target: string, how: string): Line => [
    'mount.entry',
    `${escaped(source)} ${escaped(target)} none ${how} 0 0`,
  ]
  return [
    ...mountsOf(options).flatMap((mount) => mountPoint(mount, sources[mount.name], bound)),
    ...served.files.map((file) => bound(`${served.target}/proc/${file}`, `proc/${file}`, 'bind,optional')),
    bound(`${served.target}/${served.processors}`, served.processors, 'bind,optional'),
    ...devices.map(({ source, path }) => bound(source, path.replace(/^\//, ''), 'bind,create=file')),
    ...(fuse ? [bound('/dev/fuse', 'dev/fuse', 'bind,create=file,optional')] : []),
    // Mounts of proc and sysfs that nothing hides a part of, without which the kernel allows no further ones.
    ...(nesting
      ? ([
          ['mount.entry', 'proc dev/.lxc/proc proc create=dir,optional 0 0'],
          ['mount.entry', 'sys dev/.lxc/sys sysfs create=dir,optional 0 0'],
        ] as const)
      : []),
  ]
}

function mountPoint(
  { name, path, values }: Mount,
  source: string | undefined,
  bound: (source: string, target: string, how: string) => Line,
): Line[] {
  if (name === 'rootfs' || source === undefined) return []
  // Its other rules it has already where it comes from.
  const how = ['bind', 'create=dir', ...(values.ro === true ? ['ro'] : [])]
  return [bound(source, path.replace(/^\/+/, ''), how.join(','))]
}

function card(nic: Nic, at: number, cable: string | undefined): Line[] {
  if (cable === undefined) return []
  const given = nic.isHostManaged
    ? [
        ['ipv4.address', nic.ip],
        ['ipv4.gateway', nic.gateway],
        ['ipv6.address', nic.ip6],
        ['ipv6.gateway', nic.gateway6],
      ].filter(([, value]) => value !== undefined && value !== 'manual')
    : []
  return [
    ['type', 'phys'],
    ['link', cable],
    ['name', nic.inside],
    ['hwaddr', nic.mac],
    ['flags', 'up'],
    ...(nic.mtu === undefined ? [] : [['mtu', String(nic.mtu)]]),
    ...given,
  ].map(([key, value]): Line => [`net.${at}.${key}`, String(value)])
}
