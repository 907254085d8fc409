/** What a container is told about itself, of what its options say. */
import { splitList } from '#base/schema/formats.ts'
import type { Addressing, Dns } from '../cloud-init/network.ts'
import { addressing } from '../cloud-init/network.ts'
import type { Options } from '../config.ts'
import { hostnameOf, isOn } from '../config.ts'
import { rootOf } from './idmap.ts'
import type { Nic } from './nic.ts'
import { nicsOf } from './nic.ts'
import type { OsType } from './setup/family.ts'
import { osTypes } from './setup/family.ts'
import type { Inside } from './setup/set-up.ts'
import type { Told, ToldNic } from './setup/told.ts'

/** What it is told where its options say nothing. */
export interface OfNode {
  readonly dns: Dns
  readonly timezone: string
}

const usualTerminals = 2

export function toldOf(vmid: number, options: Options, ofNode: OfNode): Told {
  const { nameserver, searchdomain, timezone, tty } = options
  return {
    hostname: hostnameOf(options, vmid),
    nics: nicsOf(options).map(toldNic),
    dns: {
      servers: nameserver === undefined ? ofNode.dns.servers : splitList(nameserver),
      search: searchdomain === undefined ? ofNode.dns.search : splitList(searchdomain),
    },
    ttys: isOn(options.console, true) ? Number(tty ?? usualTerminals) : 0,
    timezone: timezone === 'host' ? ofNode.timezone : timezone,
  }
}

function toldNic(nic: Nic): ToldNic {
  const how = (text: string | undefined, gateway: string | undefined): Addressing | undefined => {
    if (text === undefined) return undefined
    // What the node gives it, its own system leaves alone.
    return nic.isHostManaged ? { kind: 'manual' } : addressing(text, gateway)
  }
  return { name: nic.inside, ip4: how(nic.ip, nic.gateway), ip6: how(nic.ip6, nic.gateway6) }
}

/** The system inside, as far as its options tell. */
export function insideOf(options: Options, rootfs: string, warn: (line: string) => void): Inside {
  const ostype: OsType = osTypes.find((one) => one === options.ostype) ?? 'unmanaged'
  const root = rootOf(options)
  return { rootfs, owner: { uid: root, gid: root }, ostype, warn }
}
