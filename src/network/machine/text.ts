/**
 * Declared interfaces as text in the manner of interfaces(5), and the difference between two of them: what a person reads
 * before applying a change. Nobody reads it back.
 */
import { diff } from 'node:util'
import { aliasedLink, type Declared, everyVlan, vlanOf } from './declared.ts'

export function interfacesText(all: readonly Declared[]): string {
  const stanzas = all.toSorted((a, b) => (a.iface < b.iface ? -1 : 1)).map(stanzaOf)
  return ['auto lo\niface lo inet loopback\n', ...stanzas].join('\n')
}

function stanzaOf(wish: Declared): string {
  const { iface, autostart, cidr, gateway, cidr6, gateway6, comments, comments6 } = wish
  const remarks = (text: string | undefined) =>
    (text ?? '')
      .split('\n')
      .filter(Boolean)
      .map((line) => `#${line}`)
  const lines = [
    ...(autostart === true ? [`auto ${iface}`] : []),
    `iface ${iface} inet ${cidr === undefined ? 'manual' : 'static'}`,
    ...indented([['address', cidr], ['gateway', gateway], ...optionsOf(wish)]),
    ...remarks(comments),
  ]
  if (cidr6 !== undefined || comments6 !== undefined) {
    lines.push(
      '',
      `iface ${iface} inet6 ${cidr6 === undefined ? 'manual' : 'static'}`,
      ...indented([
        ['address', cidr6],
        ['gateway', gateway6],
      ]),
      ...remarks(comments6),
    )
  }
  return `${lines.join('\n')}\n`
}

type Option = readonly [string, string | number | undefined]

const indented = (options: readonly Option[]) =>
  options.flatMap(([key, value]) => (value === undefined ? [] : [`\t${key} ${value}`]))

function optionsOf(wish: Declared): Option[] {
  const mtu: Option = ['mtu', wish.mtu]
  switch (wish.type) {
    case 'bridge':
      return [
        ['bridge-ports', wish.bridge_ports?.length ? wish.bridge_ports.join(' ') : 'none'],
        ['bridge-stp', 'off'],
        ['bridge-fd', 0],
        ...(wish.bridge_vlan_aware === true
          ? ([
              ['bridge-vlan-aware', 'yes'],
              ['bridge-vids', wish.bridge_vids ?? everyVlan],
            ] as const)
          : []),
        mtu,
      ]
    case 'bond':
      return [
        ['bond-slaves', (wish.slaves ?? []).join(' ')],
        ['bond-miimon', 100],
        ['bond-mode', wish.bond_mode ?? 'balance-rr'],
        ['bond-xmit-hash-policy', wish.bond_xmit_hash_policy],
        ['bond-primary', wish['bond-primary']],
        mtu,
      ]
    case 'vlan':
      return [['vlan-id', vlanOf(wish).id], ['vlan-raw-device', vlanOf(wish).parent], mtu]
    case 'alias':
      return [['alias-of', aliasedLink(wish)]]
    case 'eth':
      return [mtu]
    default:
      return wish.type satisfies never
  }
}

const contextLines = 3
const files = ['--- /etc/network/interfaces', '+++ /etc/network/interfaces.new']

/** The difference as `diff -u` writes it; nothing where there is none. */
export function unifiedDiff(before: string, after: string): string {
  const [old, fresh] = [before.split('\n').slice(0, -1), after.split('\n').slice(0, -1)]
  // The runtime's own comparison says 1 for what is only in its first argument.
  const edits = diff(old, fresh).map(([kind, line]) => ({ kind: kind === 1 ? '-' : kind === -1 ? '+' : ' ', line }))
  const hunks: string[] = []
  for (const [from, to] of hunkBounds(edits.map(({ kind }) => kind !== ' '))) {
    const count = (until: number, kinds: string) =>
      edits.slice(0, until).filter(({ kind }) => kinds.includes(kind)).length
    const range = (kinds: string) => `${count(from, kinds) + 1},${count(to, kinds) - count(from, kinds)}`
    hunks.push(`@@ -${range(' -')} +${range(' +')} @@`, ...edits.slice(from, to).map(({ kind, line }) => kind + line))
  }
  return hunks.length === 0 ? '' : [...files, ...hunks, ''].join('\n')
}

/** From and to (exclusive) of each run of changes with its surroundings; runs that touch are one. */
function hunkBounds(isChanged: readonly boolean[]): [number, number][] {
  const bounds: [number, number][] = []
  for (const [at, changed] of isChanged.entries()) {
    if (!changed) continue
    const [from, to] = [Math.max(0, at - contextLines), Math.min(isChanged.length, at + contextLines + 1)]
    const last = bounds.at(-1)
    if (last && from <= last[1]) last[1] = to
    else bounds.push([from, to])
  }
  return bounds
}
