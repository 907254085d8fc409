/**
 * OpenNebula's layout: one file of shell variables, which cloud-init and OpenNebula's own scripts read.
 *
 * It has words for fixed addresses alone. A card that is to ask by DHCP is not mentioned but for its MAC address; when
 * none has a fixed address, cloud-init lets all of them ask.
 */
import { netmaskOf, type ToldCard, type ToldNetwork } from './network.ts'

export type Variables = Readonly<Record<string, string | undefined>>

export const contextFile = 'context.sh'

export function networkVariables({ cards, dns }: ToldNetwork): Variables {
  const isTold = cards.some(({ ip4, ip6 }) => ip4?.kind === 'static' || ip6?.kind === 'static')
  return {
    NETWORK: 'YES',
    ...Object.assign({}, ...cards.map((card) => cardVariables(card))),
    DNS: wordsOf(dns.servers),
    SEARCH_DOMAIN: wordsOf(dns.search),
    // By card is how cloud-init wants the domains.
    ...(isTold
      ? Object.fromEntries(cards.map(({ name }) => [`${name.toUpperCase()}_SEARCH_DOMAIN`, wordsOf(dns.search)]))
      : {}),
  }
}

function cardVariables({ name, mac, ip4, ip6 }: ToldCard): Variables {
  const prefix = name.toUpperCase()
  const four =
    ip4?.kind === 'static'
      ? { IP: ip4.address, MASK: netmaskOf(ip4.address, ip4.bits), GATEWAY: ip4.gateway }
      : { METHOD: ip4?.kind === 'dhcp' ? 'dhcp' : 'skip' }
  const six =
    ip6?.kind === 'static' ? { IP6: ip6.address, IP6_PREFIX_LENGTH: String(ip6.bits), GATEWAY6: ip6.gateway } : {}
  const all = Object.entries({ MAC: mac, ...four, ...six })
  return Object.fromEntries(all.map(([key, value]) => [`${prefix}_${key}`, value]))
}

function wordsOf(list: readonly string[]): string | undefined {
  return list.length === 0 ? undefined : list.join(' ')
}

/** A value is between single quotes, where a shell takes every sign as it is. */
export function printVariables(variables: Variables): string {
  const lines = Object.entries(variables).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}='${value.replaceAll("'", `'\\''`)}'\n`],
  )
  return lines.join('')
}
