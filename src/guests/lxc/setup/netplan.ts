/** netplan: one file, which goes before those of others because its name comes last. */
import { toYaml } from '../../yaml.ts'
import { fixedOf, isBeyond, isLeftAlone } from './addresses.ts'
import { ownFile, putFile, removeOwn } from './managed.ts'
import type { ToldDns, ToldNic } from './told.ts'
import type { Tree } from './tree.ts'

const path = '/etc/netplan/95-node.yaml'

export async function writeNetplan(tree: Tree, nics: readonly ToldNic[], dns: ToldDns): Promise<void> {
  const own = nics.filter((nic) => !isLeftAlone(nic))
  if (own.length === 0) await removeOwn(tree, path)
  // It complains about files everybody may read.
  else await putFile(tree, path, netplanFile(own, dns), { mode: 0o600 })
}

export function netplanFile(nics: readonly ToldNic[], dns: ToldDns): string {
  const ethernets = Object.fromEntries(nics.map((nic) => [nic.name, cardOf(nic, dns)]))
  return `${ownFile}\n${toYaml({ network: { version: 2, renderer: 'networkd', ethernets } })}`
}

function cardOf(nic: ToldNic, { servers, search }: ToldDns): object {
  const fixed = fixedOf(nic)
  const routes = fixed.flatMap((one) =>
    one.gateway === undefined
      ? []
      : [
          {
            to: one.gateway.includes(':') ? '::/0' : '0.0.0.0/0',
            via: one.gateway,
            ...(isBeyond(one) && { 'on-link': true }),
          },
        ],
  )
  return {
    dhcp4: nic.ip4?.kind === 'dhcp',
    dhcp6: nic.ip6?.kind === 'dhcp',
    'accept-ra': nic.ip6?.kind === 'auto' || nic.ip6?.kind === 'dhcp',
    ...(fixed.length > 0 && { addresses: fixed.map(({ address, bits }) => `${address}/${bits}`) }),
    ...(routes.length > 0 && { routes }),
    ...(servers.length + search.length > 0 && { nameservers: { addresses: [...servers], search: [...search] } }),
  }
}
