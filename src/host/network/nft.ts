/**
 * Packet filtering by nftables: one table of our own, replaced as a whole.
 *
 * Invariants: nothing but the own table is ever touched, and a table changes in one transaction of the
 * kernel, so there is no moment with half the rules. What the rules are is a pure function of the
 * bridges (`natRuleset`); loading it is one `nft -f -`.
 *
 * The tempting way, adding and removing single rules, has to remember handles and leaves what a crash
 * forgot.
 */
import { Fault } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { inNetns, type NetworkPlace } from './netns.ts'

/** A bridge whose guests reach the outside under the machine's address. */
export interface NatBridge {
  readonly name: string
  /** Its network, `10.181.3.0/24`. */
  readonly network: string
}

export interface NatRules {
  /** Table name; family `inet`. */
  readonly table: string
  readonly bridges: readonly NatBridge[]
  /**
   * Links between which this machine did not forward before we switched forwarding on: it goes on not
   * forwarding between them. Links made later, by other software for its own ends, are not in the list.
   */
  readonly keepApart: readonly string[]
  /** Names of empty chains that say something to whoever reads the table. */
  readonly marks?: readonly string[]
}

/**
 * The whole table as text: guests may open connections to the outside from addresses of their own
 * network; nobody outside opens one to them; the machine itself answers them DHCP and ping alone.
 */
export function natRuleset(rules: NatRules): string {
  const { bridges, keepApart, marks = [] } = rules
  const apart = keepApart.map(quote).join(', ')
  return table(rules.table, [
    ...marks.map((mark) => `  chain ${word(mark)} {\n  }\n`),
    chain('input', 'type filter hook input priority filter; policy accept;', bridges.flatMap(inputRules)),
    chain('forward', 'type filter hook forward priority filter; policy accept;', [
      ...bridges.flatMap(forwardRules),
      ...(apart === '' ? [] : [`iifname { ${apart} } oifname { ${apart} } drop`]),
    ]),
    chain(
      'postrouting',
      'type nat hook postrouting priority srcnat; policy accept;',
      bridges.map(({ network }) => `ip saddr ${network} ip daddr != ${network} masquerade`),
    ),
  ])
}

function inputRules({ name }: NatBridge): string[] {
  return [
    `iifname ${quote(name)} ct state established,related accept`,
    `iifname ${quote(name)} udp dport 67 accept`,
    `iifname ${quote(name)} icmp type echo-request accept`,
    `iifname ${quote(name)} drop`,
  ]
}

function forwardRules({ name, network }: NatBridge): string[] {
  const bridge = quote(name)
  return [
    // Frames between two guests pass here as well where the machine filters bridged traffic.
    `iifname ${bridge} oifname ${bridge} accept`,
    `iifname ${bridge} ip saddr != ${network} drop`,
    `iifname ${bridge} meta nfproto != ipv4 drop`,
    `oifname ${bridge} ct state established,related accept`,
    `oifname ${bridge} drop`,
  ]
}

/** A table that replaces its namesake: adding it first makes the deletion always possible. */
function table(name: string, chains: readonly string[]): string {
  return `${deletion(name)}table inet ${word(name)} {\n${chains.join('\n')}}\n`
}

function deletion(name: string): string {
  return `table inet ${word(name)}\ndelete table inet ${word(name)}\n`
}

function chain(name: string, hook: string, rules: readonly string[]): string {
  return [`  chain ${name} {`, `    ${hook}`, ...rules.map((rule) => `    ${rule}`), '  }', ''].join('\n')
}

/** Loads a ruleset, all of it or nothing. @throws Fault `failed` with nft's complaint. */
export async function loadRuleset(host: Host, text: string, place: NetworkPlace = {}): Promise<void> {
  const { code, stderr } = await host.run(inNetns(place.netns, ['nft', '-f', '-']), { input: text, okCodes: [0, 1] })
  if (code !== 0)
    throw new Fault('failed', `nft refused the rules: ${complaintOf(stderr)}`, { cause: { text, stderr } })
}

/** Where and what, with the line it stands in; nft's last line is but a marker below that. */
function complaintOf(stderr: string): string {
  return stderr
    .split('\n')
    .slice(0, 2)
    .map((line) => line.trim())
    .join(': ')
}

/** Removes a table of family `inet`. Idempotent. */
export async function deleteTable(host: Host, name: string, place: NetworkPlace = {}): Promise<void> {
  await loadRuleset(host, deletion(name), place)
}

/** Every chain of every table of family `inet`; a table without chains is not among them. */
export async function listChains(host: Host, place: NetworkPlace = {}): Promise<{ table: string; name: string }[]> {
  const { stdout } = await host.run(inNetns(place.netns, ['nft', '--json', 'list', 'chains', 'inet']))
  return parseChains(stdout)
}

export function parseChains(text: string): { table: string; name: string }[] {
  const document: unknown = JSON.parse(text)
  const items: unknown = typeof document === 'object' && document !== null ? Reflect.get(document, 'nftables') : []
  return (Array.isArray(items) ? items : []).flatMap((item: unknown) => {
    const chain: unknown = typeof item === 'object' && item !== null ? Reflect.get(item, 'chain') : undefined
    if (typeof chain !== 'object' || chain === null) return []
    return [{ table: String(Reflect.get(chain, 'table')), name: String(Reflect.get(chain, 'name')) }]
  })
}

function word(name: string): string {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    throw new Fault('invalid', `'${name}' is no name for a table or chain of nft`)
  return name
}

function quote(name: string): string {
  if (!/^[^\s"\\]{1,15}$/.test(name)) throw new Fault('invalid', `'${name}' is no name for a network interface`)
  return `"${name}"`
}
