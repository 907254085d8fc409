/**
 * `/etc/network/interfaces`: Debian and its kin, and Alpine.
 *
 * The file belongs to people as much as to the node. Stanzas of other cards stay as they are, and so do options we
 * know nothing of in those of ours; ours are written where they were, new ones at the end.
 */
import type { Addressing, StaticAddress } from '../../cloud-init/network.ts'
import { netmaskOf } from '../../cloud-init/network.ts'
import { isBeyond } from './addresses.ts'
import { putFile } from './managed.ts'
import type { ToldNic } from './told.ts'
import type { Tree } from './tree.ts'

export interface Dialect {
  /** Whether the programs know addresses as `10.0.0.2/24`. */
  readonly hasPrefixes: boolean
  /** Whether there is `inet6 auto`. Without it, a card that is up asks anyway. */
  readonly hasAuto: boolean
}

const path = '/etc/network/interfaces'
const plain = 'auto lo\niface lo inet loopback\n'

export async function writeInterfaces(tree: Tree, nics: readonly ToldNic[], dialect: Dialect): Promise<void> {
  await putFile(tree, path, mergedInterfaces((await tree.read(path)) ?? plain, nics, dialect))
}

/** A line that begins something, with all that belongs to it. */
interface Stanza {
  readonly head: string
  readonly body: readonly string[]
}

const begins = /^\s*(?:auto|allow-\S+|iface|mapping|source|source-directory|no-auto-down|no-scripts|rename|template)\s/
type FamilyName = 'inet' | 'inet6'
const families: readonly FamilyName[] = ['inet', 'inet6']

export function mergedInterfaces(text: string, nics: readonly ToldNic[], dialect: Dialect): string {
  const { lead, stanzas } = parse(text)
  const written = new Set<string>()
  const kept = stanzas.flatMap((stanza): string[] => {
    const own = nicOf(stanza, nics)
    if (own === undefined) return [stanza.head, ...stanza.body]
    const { nic, family } = own
    const key = `${nic.name} ${family}`
    // A second one for the same card is an address more, of somebody's own.
    if (written.has(key)) return [stanza.head, ...stanza.body]
    written.add(key)
    const theirs = stanza.body.filter((line) => !isOurs(line))
    const how = howOf(nic, family)
    if (how?.kind === 'manual') return [stanza.head, ...stanza.body]
    if (how !== undefined) return [...stanzaOf(nic.name, family, how, dialect), ...theirs]
    return theirs.some((line) => /^\s*[^#\s]/.test(line)) ? [stanza.head, ...stanza.body] : blanksIn(theirs)
  })
  const started = new Set(stanzas.flatMap(({ head }) => startedBy(head)))
  const added = nics.flatMap((nic): string[] => {
    const missing = families.flatMap((family) => {
      const how = written.has(`${nic.name} ${family}`) ? undefined : howOf(nic, family)
      return how === undefined ? [] : [stanzaOf(nic.name, family, how, dialect)]
    })
    const auto = started.has(nic.name) ? [] : [`auto ${nic.name}`]
    return auto.length + missing.length === 0 ? [] : ['', ...auto, ...missing.flat()]
  })
  return `${[...lead, ...kept, ...added]
    .join('\n')
    .replaceAll(/\n{3,}/g, '\n\n')
    .trimEnd()}\n`
}

function parse(text: string): { lead: string[]; stanzas: Stanza[] } {
  const lead: string[] = []
  const stanzas: { head: string; body: string[] }[] = []
  let goesOn = false
  for (const line of text.trimEnd().split('\n')) {
    const last = stanzas.at(-1)
    if (goesOn && last?.body.length === 0) last.head += `\n${line}`
    else if (!goesOn && begins.test(line)) stanzas.push({ head: line, body: [] })
    else (last?.body ?? lead).push(line)
    goesOn = line.endsWith('\\')
  }
  return { lead, stanzas }
}

function nicOf({ head }: Stanza, nics: readonly ToldNic[]): { nic: ToldNic; family: FamilyName } | undefined {
  const [, name, family] = /^\s*iface\s+(\S+)\s+(inet6?)\s/.exec(`${head} `) ?? []
  const nic = nics.find((one) => one.name === name)
  return nic && { nic, family: family === 'inet6' ? 'inet6' : 'inet' }
}

function startedBy(head: string): string[] {
  const [, names = ''] = /^\s*(?:auto|allow-(?:auto|hotplug))\s+(.*)$/s.exec(head) ?? []
  return names.split(/[\s\\]+/)
}

/** A card of which nothing is said is at least switched on. */
function howOf({ ip4, ip6 }: ToldNic, family: FamilyName): Addressing | undefined {
  if (family === 'inet6') return ip6
  return ip4 ?? (ip6 === undefined ? { kind: 'manual' } : undefined)
}

function stanzaOf(name: string, family: FamilyName, how: Addressing, dialect: Dialect): string[] {
  const method = how.kind === 'auto' && !dialect.hasAuto ? 'manual' : how.kind
  const head = `iface ${name} ${family} ${method}`
  return how.kind === 'static' ? [head, ...addressLines(name, family, how, dialect)] : [head]
}

function addressLines(name: string, family: FamilyName, how: StaticAddress, { hasPrefixes }: Dialect): string[] {
  const { address, bits, gateway } = how
  const mask = family === 'inet6' ? String(bits) : netmaskOf(address, bits)
  const own = hasPrefixes ? [`address ${address}/${bits}`] : [`address ${address}`, `netmask ${mask}`]
  const ip = family === 'inet6' ? 'ip -6' : 'ip'
  const onLink = `post-up ${ip} route replace default via ${gateway} dev ${name} onlink`
  const out = gateway === undefined ? [] : [isBeyond(how) ? onLink : `gateway ${gateway}`]
  return [...own, ...out].map((line) => `\t${line}`)
}

function isOurs(line: string): boolean {
  return /^\s*(?:(?:address|netmask|broadcast|network|gateway)\s|post-up ip(?: -6)? route replace default via \S+ dev \S+ onlink$)/.test(
    line,
  )
}

function blanksIn(lines: readonly string[]): string[] {
  return lines.filter((line) => !/^\s*[^#\s]/.test(line))
}
