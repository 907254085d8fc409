/**
 * Which addresses this machine asks on behalf of somebody else.
 *
 * Whoever may have a URL fetched must not reach through us what only we can reach: this machine itself under any of
 * its addresses, its links, and the services clouds offer to their machines alone. What the owner names decides
 * first: `10.0.0.0/8` is asked though it would be refused, `!10.0.0.0/8` is refused though it would be asked.
 */
import { networkInterfaces } from 'node:os'
import { BlockList, isIP } from 'node:net'
import { invalid } from '#base/fault.ts'
import { once } from '#base/on-demand.ts'

export interface Reach {
  /** May the address be asked? It is an address, not a name. */
  readonly includes: (address: string) => boolean
}

/** Lists are made when something is asked for: telling what an address is takes Node some ms the first time. */
const refused = once(() =>
  listOf([
    '0.0.0.0/8',
    '127.0.0.0/8',
    '169.254.0.0/16', // the link, and most clouds' metadata
    '192.0.0.0/24', // protocol assignments, and one cloud's metadata
    '100.100.100.200/32', // another cloud's metadata
    '224.0.0.0/4',
    '240.0.0.0/4',
    '::/96',
    'fe80::/10',
    'fec0::/10',
    'ff00::/8',
    'fd00:ec2::254/128', // clouds' metadata
    'fd20:ce::254/128',
    // Tunnels and translations of which nobody knows where they end.
    '2001::/32',
    '2002::/16',
    '64:ff9b:1::/48',
  ]),
)
/** An IPv4 address, translated by the network: judged as that. */
const translated = once(() => listOf(['64:ff9b::/96']))

/**
 * @param networks as `10.0.0.0/8`, `192.0.2.7` or `!10.0.0.0/8`
 * @throws Fault `invalid` naming the one that is none
 */
export function reachOf(networks: readonly string[] = []): Reach {
  const allowed = listOf(networks.filter((one) => !one.startsWith('!')))
  const denied = listOf(networks.filter((one) => one.startsWith('!')).map((one) => one.slice(1)))
  const includes = (address: string): boolean => {
    if (isIn(denied, address)) return false
    if (isIn(allowed, address)) return true
    if (isIn(translated(), address)) return includes(embeddedAddress(address))
    return !isIn(refused(), address) && !isIn(listOf(ownAddresses()), address)
  }
  return { includes }
}

function isIn(list: BlockList, address: string): boolean {
  return list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}

function listOf(networks: readonly string[]): BlockList {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', bits, ...rest] = network.split('/')
    const family = isIP(address)
    const most = family === 6 ? 128 : 32
    const length = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : NaN
    if (family === 0 || rest.length > 0 || !(length <= most)) {
      throw invalid({ network: `'${network.slice(0, 64)}' is no network such as 10.0.0.0/8` })
    }
    list.addSubnet(address, length, family === 6 ? 'ipv6' : 'ipv4')
  }
  return list
}

/** Those of guests' bridges too: what listens on all addresses listens there. */
function ownAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((addresses = []) =>
    addresses.map(({ address }) => address.replace(/%.*$/, '')),
  )
}

/** The last 32 bits of an IPv6 address as an IPv4 address. */
function embeddedAddress(address: string): string {
  const dotted = /(\d+\.\d+\.\d+\.\d+)$/.exec(address)?.[1]
  if (dotted !== undefined) return dotted
  // A URL spells every address the same way, with its last two groups written out.
  const groups = new URL(`http://[${address}]`).hostname.slice(1, -1).split(':')
  const [high = 0, low = 0] = groups.slice(-2).map((group) => Number.parseInt(group || '0', 16))
  return [high >> 8, high & 255, low >> 8, low & 255].join('.')
}
