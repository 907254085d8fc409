/** Options of the cluster as clients read them: property strings become objects, lists become arrays. */
import { parsePropertyString } from '#base/schema/property-string.ts'
import type { Properties } from '#base/schema/schema.ts'
import type { ClusterOptionValues } from '#cluster/options.ts'

/** MAC addresses we give begin so when nobody says otherwise. */
const defaultMacPrefix = 'BC:24:11'
/** Kept as the text they are, though they have keys. */
const plain: readonly string[] = ['bwlimit', 'location']
const lists: readonly string[] = ['registered-tags']
/** What a user interface needs to know whoever uses it. */
const open: readonly string[] = [
  'console',
  'consent-text',
  'tag-style',
  'user-tag-access',
  'allowed-tags',
  'keyboard',
  'language',
]

/** @param seesAll `Sys.Audit` on `/` */
export function optionsReply(
  params: Properties,
  values: ClusterOptionValues,
  seesAll: boolean,
): Record<string, unknown> {
  const read = Object.entries(values).map(([name, text]) => [name, asWire(params, name, text)] as const)
  const registered = (values['registered-tags'] ?? '').split(';').filter(Boolean)
  const all: Record<string, unknown> = {
    mac_prefix: defaultMacPrefix,
    ...Object.fromEntries(read),
    'allowed-tags': [...new Set([...registered, ...allowedTags(values['user-tag-access'])])].toSorted(),
  }
  return seesAll ? all : Object.fromEntries(Object.entries(all).filter(([name]) => open.includes(name)))
}

function asWire(params: Properties, name: string, text: string): unknown {
  const schema = params[name]
  if (lists.includes(name)) return text.split(';').filter(Boolean)
  if (schema?.type === 'integer') return Number(text)
  if (schema?.type === 'boolean') return text === '1' ? 1 : 0
  if (typeof schema?.format !== 'object' || plain.includes(name)) return text
  const parsed = parsePropertyString(schema.format, text)
  if (!parsed.ok) return text
  return Object.fromEntries(
    Object.entries(parsed.values).map(([key, value]) => [key, typeof value === 'boolean' ? Number(value) : value]),
  )
}

function allowedTags(access: string | undefined): string[] {
  const list = /(?:^|,)user-allow-list=([^,]*)/.exec(access ?? '')?.[1] ?? ''
  return list.split(';').filter(Boolean)
}
