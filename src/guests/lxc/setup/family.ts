/**
 * Which distribution a tree is of, and which family it is set up as.
 *
 * What a tree says of itself is text of somebody else's: it chooses among the ways we know, and nothing more.
 */
import type { Tree } from './tree.ts'

/** Those with a way of their own, and the rest, which gets what all have in common. */
export type Family = 'debian' | 'ubuntu' | 'alpine' | 'fedora' | 'arch' | 'other'

export const osTypes = [
  'debian',
  'devuan',
  'ubuntu',
  'centos',
  'fedora',
  'opensuse',
  'archlinux',
  'alpine',
  'gentoo',
  'nixos',
  'unmanaged',
] as const
export type OsType = (typeof osTypes)[number]

const families: Readonly<Record<OsType, Family | undefined>> = {
  debian: 'debian',
  devuan: 'debian',
  ubuntu: 'ubuntu',
  centos: 'fedora',
  fedora: 'fedora',
  opensuse: 'other',
  archlinux: 'arch',
  alpine: 'alpine',
  gentoo: 'other',
  nixos: 'other',
  unmanaged: undefined,
}

/** Nothing for a container nobody sets up. */
export function familyOf(ostype: OsType): Family | undefined {
  return families[ostype]
}

/** By `ID` of os-release; those that are like another are found by `ID_LIKE`. */
const ids: Readonly<Record<string, OsType>> = {
  almalinux: 'centos',
  alpine: 'alpine',
  arch: 'archlinux',
  centos: 'centos',
  debian: 'debian',
  devuan: 'devuan',
  fedora: 'fedora',
  gentoo: 'gentoo',
  nixos: 'nixos',
  opensuse: 'opensuse',
  rhel: 'centos',
  rocky: 'centos',
  suse: 'opensuse',
  ubuntu: 'ubuntu',
}

/** By files older systems have, the more special first. */
const releaseFiles: readonly (readonly [string, OsType])[] = [
  ['/etc/devuan_version', 'devuan'],
  ['/etc/debian_version', 'debian'],
  ['/etc/SuSE-release', 'opensuse'],
  ['/etc/fedora-release', 'fedora'],
  ['/etc/redhat-release', 'centos'],
  ['/etc/arch-release', 'archlinux'],
  ['/etc/alpine-release', 'alpine'],
  ['/etc/gentoo-release', 'gentoo'],
]

/** `unmanaged` when it is none we know. */
export async function detectOsType(tree: Tree): Promise<OsType> {
  for (const path of ['/etc/os-release', '/usr/lib/os-release']) {
    const facts = releaseFacts((await tree.read(path)) ?? '')
    const like = (facts.get('ID_LIKE') ?? '').split(/\s+/)
    for (const id of [facts.get('ID') ?? '', ...like]) {
      const found = ids[id] ?? ids[id.split('-')[0] ?? '']
      if (found !== undefined) return found
    }
  }
  if (/^DISTRIB_ID=Ubuntu$/m.test((await tree.read('/etc/lsb-release')) ?? '')) return 'ubuntu'
  for (const [path, ostype] of releaseFiles) if (await tree.exists(path)) return ostype
  return 'unmanaged'
}

export function releaseFacts(text: string): Map<string, string> {
  const found = [...text.matchAll(/^([A-Z_]+)=(["']?)([^"'\n]*)\2\s*$/gm)]
  return new Map(found.map(([, key = '', , value = '']) => [key, value.toLowerCase()]))
}
