/** NetworkManager: a profile per card. */
import type { Addressing } from '../../cloud-init/network.ts'
import { isLeftAlone } from './addresses.ts'
import { ownFile, putFile, removeOwn } from './managed.ts'
import type { ToldDns, ToldNic } from './told.ts'
import type { Tree } from './tree.ts'

const folder = '/etc/NetworkManager/system-connections'

export async function writeProfiles(tree: Tree, nics: readonly ToldNic[], dns: ToldDns): Promise<void> {
  const files = new Map(
    nics.flatMap((nic) => (isLeftAlone(nic) ? [] : [[`${nic.name}.nmconnection`, profile(nic, dns)]])),
  )
  // It passes over profiles others than root may read.
  for (const [name, content] of files) await putFile(tree, `${folder}/${name}`, content, { mode: 0o600 })
  for (const name of await tree.names(folder)) {
    if (name.endsWith('.nmconnection') && !files.has(name)) await removeOwn(tree, `${folder}/${name}`)
  }
}

export function profile({ name, ip4, ip6 }: ToldNic, dns: ToldDns): string {
  const sections = [
    ['[connection]', `id=${name}`, 'type=ethernet', `interface-name=${name}`],
    ['[ipv4]', ...family(ip4, dns, (server) => !server.includes(':'))],
    ['[ipv6]', ...family(ip6, dns, (server) => server.includes(':'))],
  ]
  return `${ownFile}\n${sections.map((lines) => `${lines.join('\n')}\n`).join('\n')}`
}

const methods = { static: 'manual', dhcp: 'auto', auto: 'auto', manual: 'disabled' } as const

function family(how: Addressing | undefined, dns: ToldDns, isOf: (server: string) => boolean): string[] {
  const method = how === undefined ? 'disabled' : methods[how.kind]
  if (how === undefined || method === 'disabled') return ['method=disabled']
  const servers = dns.servers.filter(isOf)
  return [
    // Of the two ways to be told, DHCP in IPv6 has a name of its own.
    `method=${how.kind === 'dhcp' && isOf('::') ? 'dhcp' : method}`,
    ...(how.kind === 'static' ? [`address1=${how.address}/${how.bits}${how.gateway ? `,${how.gateway}` : ''}`] : []),
    ...(servers.length > 0 ? [`dns=${servers.map((server) => `${server};`).join('')}`] : []),
    ...(dns.search.length > 0 ? [`dns-search=${dns.search.map((domain) => `${domain};`).join('')}`] : []),
  ]
}
