/** systemd-networkd: a file per card. */
import { fixedOf, isBeyond, isLeftAlone } from './addresses.ts'
import { ownFile, putFile, removeOwn } from './managed.ts'
import type { ToldDns, ToldNic } from './told.ts'
import type { Tree } from './tree.ts'

const folder = '/etc/systemd/network'

export async function writeNetworkd(tree: Tree, nics: readonly ToldNic[], dns: ToldDns): Promise<void> {
  const files = new Map(
    nics.flatMap((nic) => (isLeftAlone(nic) ? [] : [[`${nic.name}.network`, networkFile(nic, dns)]])),
  )
  for (const [name, content] of files) await putFile(tree, `${folder}/${name}`, content)
  for (const name of await tree.names(folder)) {
    if (name.endsWith('.network') && !files.has(name)) await removeOwn(tree, `${folder}/${name}`)
  }
  await switchOn(tree)
}

export function networkFile(nic: ToldNic, { servers, search }: ToldDns): string {
  const { ip4, ip6 } = nic
  const [asks4, asks6] = [ip4?.kind === 'dhcp', ip6?.kind === 'dhcp']
  const dhcp = asks4 ? (asks6 ? 'yes' : 'ipv4') : asks6 ? 'ipv6' : 'no'
  const listens = ip6?.kind === 'auto' || asks6
  const fixed = fixedOf(nic)
  const near = fixed.flatMap((one) => (one.gateway === undefined || isBeyond(one) ? [] : [`Gateway=${one.gateway}`]))
  const sections = [
    ['[Match]', `Name=${nic.name}`],
    [
      '[Network]',
      `DHCP=${dhcp}`,
      `IPv6AcceptRA=${listens ? 'yes' : 'no'}`,
      ...fixed.map(({ address, bits }) => `Address=${address}/${bits}`),
      ...near,
      ...servers.map((server) => `DNS=${server}`),
      ...(search.length > 0 ? [`Domains=${search.join(' ')}`] : []),
    ],
    // Addresses come from the server alone, and it is asked also where no router says so.
    ...(asks6
      ? [
          ['[IPv6AcceptRA]', 'UseAutonomousPrefix=no'],
          ['[DHCPv6]', 'WithoutRA=solicit'],
        ]
      : []),
    ...fixed.filter(isBeyond).map(({ gateway }) => ['[Route]', `Gateway=${gateway}`, 'GatewayOnLink=yes']),
  ]
  return `${ownFile}\n${sections.map((lines) => `${lines.join('\n')}\n`).join('\n')}`
}

/** Nothing else is in charge of the cards, so this must be. */
async function switchOn(tree: Tree): Promise<void> {
  const unit = 'systemd-networkd.service'
  for (const place of ['/usr/lib/systemd/system', '/lib/systemd/system']) {
    if (!(await tree.exists(`${place}/${unit}`))) continue
    const link = `/etc/systemd/system/multi-user.target.wants/${unit}`
    if ((await tree.linkAt(link)) === undefined) await tree.link(link, `${place}/${unit}`)
    return
  }
}
