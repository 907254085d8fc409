/**
 * Values made from schemas: one that fits, and for each bound one just outside it. What the schema says is
 * all that is known here, so an endpoint gets its tests by existing.
 */
import fc from 'fast-check'
import { checkValue, type Errors } from '#base/schema/check.ts'
import type { Properties, PropertyFormat, Schema } from '#base/schema/schema.ts'
import type { Method } from '#rest/endpoint.ts'

/** What the tests read of an endpoint. */
export interface Described {
  readonly method: Method
  readonly path: string
  readonly params: Properties
  readonly isUpload?: boolean
}

export interface ContractCall {
  readonly method: Method
  /** Below `/api2/json`, percent-encoded. */
  readonly path: string
  readonly params: Readonly<Record<string, unknown>>
  readonly isUpload: boolean
}

export interface ContractReply {
  readonly status: number
  readonly body: Readonly<Record<string, unknown>>
}

export type Caller = (call: ContractCall) => Promise<ContractReply>

/** Names that mean something on the node under test: `{ node: 'lab' }`. */
export type Known = Readonly<Record<string, unknown>>

/** Texts that fit a format. */
const fitting: Readonly<Record<string, string>> = {
  'pve-vmid': '777777',
  'pve-node': 'sample',
  'pve-configid': 'sample',
  'pve-storage-id': 'sample',
  'pve-volume-id': 'sample:777777/vm-777777-disk-0.raw',
  'pve-bridge-id': 'vmbr77',
  'pve-iface': 'sample0',
  'pve-vlan-id-or-range': '2-4094',
  'graphite-path': 'sample',
  'pve-realm': 'pve',
  'pve-userid': 'sample@pve',
  'pve-tokenid': 'sample@pve!sample',
  'pve-token-subid': 'sample',
  'pve-groupid': 'sample',
  'pve-roleid': 'sample',
  'pve-poolid': 'sample',
  'pve-tag': 'sample',
  'pve-upid': 'UPID:sample:00000001:00000001:65000000:sample:777777:sample@pve:',
  'pve-task-status-type': 'ok',
  'pve-priv': 'VM.Audit',
  'pve-acl-path': '/vms/777777',
  'pve-storage-content': 'images',
  'pve-startup-order': '1',
  'pve-qm-ipconfig': 'ip=dhcp',
  'pve-qm-cicustom': 'user=sample:snippets/sample.yaml',
  string: 'sample',
  'pve-acme-domain': 'sample.invalid',
  'pve-acme-alias': 'sample.invalid',
  'pve-calendar-event': 'daily',
  'pve-cpuset': '0',
  'pve-day-of-week': 'mon',
  'email-or-username': 'sample',
  'pve-lxc-mp-string': 'sample:1',
  'pve-lxc-dev-string': '/dev/null',
  'pve-ct-timezone': 'host',
  'lxc-ip-with-ll-iface': '192.0.2.1',
  'mac-prefix': 'BC:24:11',
  'disk-size': '1G',
  'mac-addr': 'BC:24:11:00:00:01',
  'dns-name': 'sample.invalid',
  'pem-string': '-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----',
  'pem-certificate-chain': '-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----',
  'pve-command-batch': '[]',
  'pve-storage-server': '192.0.2.1',
  'pve-storage-portal-dns': '192.0.2.1:3260',
  'storage-pair': 'sample',
  'bridge-pair': 'vmbr77',
  email: 'sample@example.invalid',
  urlencoded: 'sample',
  ip: '192.0.2.1',
  ipv4: '192.0.2.1',
  ipv6: '2001:db8::1',
  ipv4mask: '255.255.255.0',
  address: '192.0.2.1',
  CIDR: '192.0.2.0/24',
  CIDRv4: '192.0.2.0/24',
  CIDRv6: '2001:db8::/64',
  'pve-ipv4-config': '192.0.2.1/24',
  'pve-ipv6-config': '2001:db8::1/64',
}

function complaintAbout(schema: Schema, value: unknown): string | undefined {
  const errors: Errors = {}
  checkValue(schema, value, 'it', errors)
  return errors.it
}

/** @throws Error when no value is found: then the format is missing in the table above. */
export function sampleOf(schema: Schema, name: string): unknown {
  const value = candidate(schema, name)
  const complaint = complaintAbout(schema, value)
  if (complaint === undefined) return value
  throw new Error(`no sample for '${name}': '${JSON.stringify(value)}' is refused with: ${complaint}`)
}

function candidate(schema: Schema, name: string): unknown {
  switch (schema.type) {
    case 'boolean':
      return 1
    case 'integer':
    case 'number':
      return Math.min(Math.max(schema.minimum ?? 1, 1), schema.maximum ?? Infinity)
    case 'array':
      return schema.items ? [sampleOf(schema.items, name)] : []
    case 'object':
      return samplesOf(schema.properties ?? {})
    case 'null':
      return null
    case 'any':
      return 'sample'
    case 'string':
      return textSample(schema, name)
    default:
      return schema.type satisfies never
  }
}

function textSample(schema: Schema, name: string): string {
  const { enum: values, format, pattern, minLength = 0, maxLength = 4096 } = schema
  if (values?.[0] !== undefined) return values[0]
  if (typeof format === 'object') return propertySample(format)
  if (format !== undefined) {
    const text = fitting[format.replace(/-(list|opt)$/, '')]
    if (text === undefined) throw new Error(`no sample for the format '${format}' of '${name}': add one to the table`)
    return text
  }
  if (pattern) {
    const texts = textsMatching(pattern)
    return texts.find((text) => text.length >= Math.max(1, minLength) && text.length <= maxLength) ?? texts[0] ?? ''
  }
  return 'sample'.padEnd(minLength, 'x').slice(0, maxLength)
}

/** The same texts for the same pattern each time, so they are made once: hundreds of calls have a parameter with it. */
const made = new Map<string, readonly string[]>()

function textsMatching({ source, flags }: RegExp): readonly string[] {
  const whole = new RegExp(`^(?:${source})$`, flags.replace(/[gy]/g, ''))
  const key = String(whole)
  const known = made.get(key) ?? fc.sample(fc.stringMatching(whole), { seed: 1, numRuns: 200 })
  made.set(key, known)
  return known
}

function propertySample(format: PropertyFormat): string {
  return requiredParts(format).join(',') || firstPart(format)
}

function requiredParts(format: PropertyFormat): string[] {
  return Object.entries(format)
    .filter(([, { schema, alias, keyAlias }]) => !schema.isOptional && alias === undefined && keyAlias === undefined)
    .map(([name, { schema }]) => `${name}=${String(sampleOf(schema, name) as string)}`)
}

function firstPart(format: PropertyFormat): string {
  const [name, key] = Object.entries(format).find(([, { alias }]) => alias === undefined) ?? []
  return name === undefined || !key ? '' : `${name}=${String(sampleOf(key.schema, name) as string)}`
}

/** Required parameters, each with a value that fits; `known` ones as given. */
export function samplesOf(properties: Properties, known: Known = {}): Record<string, unknown> {
  const values: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(properties)) {
    if (schema.isOptional) continue
    values[name] = Object.hasOwn(known, name) ? known[name] : sampleOf(schema, name)
  }
  return values
}

export interface Wrong {
  readonly value: unknown
  readonly why: string
}

/** One value for each rule of the schema that breaks it. Not checked here: whether it is refused is the question. */
export function outside(schema: Schema): Wrong[] {
  const { minimum, maximum } = schema
  switch (schema.type) {
    case 'boolean':
      return [{ value: 'maybe', why: 'no boolean' }]
    case 'integer':
    case 'number':
      return [
        { value: 'x', why: 'no number' },
        ...(schema.type === 'integer' ? [{ value: '1.5', why: 'a fraction' }] : []),
        ...(minimum === undefined ? [] : [{ value: minimum - 1, why: `below ${minimum}` }]),
        ...(maximum === undefined ? [] : [{ value: maximum + 1, why: `above ${maximum}` }]),
      ]
    case 'array':
      return schema.items
        ? outside(schema.items).map(({ value, why }) => ({ value: [value], why: `item: ${why}` }))
        : []
    case 'object':
      return [{ value: 'x', why: 'no object' }]
    case 'string':
      return wrongTexts(schema)
    case 'null':
    case 'any':
      return []
    default:
      return schema.type satisfies never
  }
}

function wrongTexts(schema: Schema): Wrong[] {
  const { minLength = 0, maxLength, enum: values, pattern, format } = schema
  const odd = ['x', '!', 'é x', '-', '..', '~~~~', '0', 'a,b', '@'].map((value) => ({ value, why: 'another shape' }))
  const isShaped = values !== undefined || pattern !== undefined || typeof format === 'string'
  const firstOdd = odd.find(({ value }) => complaintAbout({ ...schema, minLength: 0 }, value) !== undefined)
  return [
    ...(maxLength === undefined ? [] : [{ value: 'a'.repeat(maxLength + 1), why: `longer than ${maxLength}` }]),
    ...(minLength > 0 ? [{ value: 'a'.repeat(minLength - 1), why: `shorter than ${minLength}` }] : []),
    ...(isShaped && firstOdd ? [firstOdd] : []),
    ...(typeof format === 'object' ? wrongParts(format) : []),
  ]
}

/** An unknown key, and each key of the format with each of its own mistakes. */
function wrongParts(format: PropertyFormat): Wrong[] {
  const others = (name: string) => requiredParts(format).filter((part) => !part.startsWith(`${name}=`))
  const keys = Object.entries(format).filter(([, { alias }]) => alias === undefined)
  const wrongs = keys.flatMap(([name, { schema }]) =>
    outside(schema)
      .filter(({ value }) => !String(value as string).includes(','))
      .map(({ value, why }) => ({
        value: [...others(name), `${name}=${String(value as string)}`].join(','),
        why: `${name}: ${why}`,
      })),
  )
  return [{ value: [...requiredParts(format), 'no-such-key=1'].join(','), why: 'an unknown key' }, ...wrongs]
}

/** A call with these parameters, the path's filled in. */
export function callOf(
  { method, path, isUpload = false }: Described,
  values: Readonly<Record<string, unknown>>,
): ContractCall {
  const params = { ...values }
  const filled = path.replace(/\{([\w-]+)(\*?)\}/g, (_, name: string) => {
    delete params[name]
    return encodeURIComponent(String(values[name] as string))
  })
  return { method, path: filled, params, isUpload }
}

export function isInPath({ path }: Described, name: string): boolean {
  return path.includes(`{${name}}`) || path.includes(`{${name}*}`)
}

/** Works through all items, some at a time, and gathers what was found. */
export async function gather<T>(
  items: readonly T[],
  find: (item: T) => Promise<readonly string[]>,
  atOnce = 16,
): Promise<string[]> {
  const findings: string[] = []
  const queue = [...items]
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) findings.push(...(await find(item)))
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return findings.toSorted()
}
