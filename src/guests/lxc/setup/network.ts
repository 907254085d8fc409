/** Which files tell a container about its cards: chosen by what is installed in it. */
import type { Family } from './family.ts'
import { ifcfgFolder, writeIfcfg } from './ifcfg.ts'
import { writeInterfaces } from './interfaces.ts'
import { writeNetplan } from './netplan.ts'
import { writeProfiles } from './network-manager.ts'
import { writeNetworkd } from './networkd.ts'
import type { Told } from './told.ts'
import type { Tree } from './tree.ts'

export type NetworkFiles = 'interfaces' | 'netplan' | 'networkd' | 'NetworkManager' | 'ifcfg'

/** @returns the way it was told, or nothing when the container has none we know */
export async function setNetwork(tree: Tree, family: Family, { nics, dns }: Told): Promise<NetworkFiles | undefined> {
  const files = await networkFilesOf(tree, family)
  switch (files) {
    case 'interfaces':
      await writeInterfaces(tree, nics, { hasPrefixes: family !== 'alpine', hasAuto: family !== 'alpine' })
      break
    case 'netplan':
      await writeNetplan(tree, nics, dns)
      break
    case 'networkd':
      await writeNetworkd(tree, nics, dns)
      break
    case 'NetworkManager':
      await writeProfiles(tree, nics, dns)
      break
    case 'ifcfg':
      await writeIfcfg(tree, nics)
      break
    case undefined:
      break
    default:
      files satisfies never
  }
  return files
}

/** In this order: what a family uses by itself comes first. */
const ways: Readonly<Record<Family, readonly NetworkFiles[]>> = {
  debian: ['interfaces', 'netplan', 'networkd', 'NetworkManager'],
  ubuntu: ['netplan', 'networkd', 'interfaces', 'NetworkManager'],
  alpine: ['interfaces'],
  fedora: ['ifcfg', 'NetworkManager', 'networkd'],
  arch: ['networkd', 'NetworkManager'],
  other: ['networkd', 'NetworkManager'],
}

export async function networkFilesOf(tree: Tree, family: Family): Promise<NetworkFiles | undefined> {
  for (const way of ways[family]) if (await isThere(tree, way)) return way
  return undefined
}

async function isThere(tree: Tree, way: NetworkFiles): Promise<boolean> {
  const some = async (...paths: string[]) => {
    for (const path of paths) if (await tree.exists(path)) return true
    return false
  }
  switch (way) {
    case 'interfaces':
      return some('/usr/sbin/ifup', '/sbin/ifup')
    case 'netplan':
      return (await tree.names('/etc/netplan')).some((name) => name.endsWith('.yaml'))
    case 'networkd':
      return some('/usr/lib/systemd/systemd-networkd', '/lib/systemd/systemd-networkd')
    case 'NetworkManager':
      return some('/usr/sbin/NetworkManager', '/usr/bin/NetworkManager')
    case 'ifcfg':
      return some(`${ifcfgFolder}/ifup`, `${ifcfgFolder}/ifcfg-eth0`)
    default:
      return way satisfies never
  }
}
