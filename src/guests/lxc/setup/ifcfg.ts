/** `/etc/sysconfig/network-scripts/ifcfg-*`: older systems of the Fedora family. */
import { isLeftAlone } from './addresses.ts'
import { ownFile, putFile, removeOwn } from './managed.ts'
import type { ToldNic } from './told.ts'
import type { Tree } from './tree.ts'

export const ifcfgFolder = '/etc/sysconfig/network-scripts'

export async function writeIfcfg(tree: Tree, nics: readonly ToldNic[]): Promise<void> {
  const files = new Map(nics.flatMap((nic) => (isLeftAlone(nic) ? [] : [[`ifcfg-${nic.name}`, ifcfgFile(nic)]])))
  for (const [name, content] of files) await putFile(tree, `${ifcfgFolder}/${name}`, content)
  for (const name of await tree.names(ifcfgFolder)) {
    if (name.startsWith('ifcfg-') && !files.has(name)) await removeOwn(tree, `${ifcfgFolder}/${name}`)
  }
}

export function ifcfgFile({ name, ip4, ip6 }: ToldNic): string {
  const lines = [
    ownFile,
    `DEVICE=${name}`,
    'TYPE=Ethernet',
    'ONBOOT=yes',
    `BOOTPROTO=${ip4?.kind === 'dhcp' ? 'dhcp' : 'none'}`,
  ]
  if (ip4?.kind === 'static') {
    lines.push(`IPADDR=${ip4.address}`, `PREFIX=${ip4.bits}`, ...(ip4.gateway ? [`GATEWAY=${ip4.gateway}`] : []))
  }
  const isAsked = ip6 !== undefined && ip6.kind !== 'manual'
  lines.push(`IPV6INIT=${isAsked ? 'yes' : 'no'}`)
  if (isAsked) lines.push(`IPV6_AUTOCONF=${ip6.kind === 'auto' ? 'yes' : 'no'}`)
  if (ip6?.kind === 'dhcp') lines.push('DHCPV6C=yes')
  if (ip6?.kind === 'static') {
    lines.push(`IPV6ADDR=${ip6.address}/${ip6.bits}`, ...(ip6.gateway ? [`IPV6_DEFAULTGW=${ip6.gateway}`] : []))
  }
  return `${lines.join('\n')}\n`
}
