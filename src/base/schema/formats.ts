/**
 * Named formats of single values. A name ending in `-list` is a list separated by `,` `;` NUL or white
 * space; one ending in `-opt` also accepts the empty text. Rules as in the protocol notes, section 11.
 */
import { isIP, isIPv4, isIPv6 } from 'node:net'
import { parseCalendarEvent } from '../calendar-event.ts'

/** Returns what is wrong, or `undefined`. */
type Format = (text: string) => string | undefined

const matching =
  (pattern: RegExp, complaint: string): Format =>
  (text) =>
    pattern.test(text) ? undefined : complaint

/** Text armour around base64, once or several times; what lies between is for somebody to say who can read it. */
function pem(label: string): Format {
  const armoured = new RegExp(`-----BEGIN ${label}-----[\\s\\S]+-----END ${label}-----\\s*$`)
  return matching(armoured, 'value does not look like PEM')
}

function cidr(isAddress: (text: string) => boolean, bits: number): Format {
  return (text) => {
    const [address = '', prefix = '', ...rest] = text.split('/')
    const isGood = rest.length === 0 && isAddress(address) && /^\d{1,3}$/.test(prefix) && Number(prefix) <= bits
    return isGood ? undefined : 'value does not look like a valid network in CIDR notation'
  }
}

/** Each of the three at most once, in any order; only the order may stand without its name. */
function startupOrder(text: string): string | undefined {
  const names = text
    .split(',')
    .map((part) => /^(?:(order|up|down)=)?\d+$/.exec(part)?.slice(1)[0] ?? (/^\d+$/.test(part) ? 'order' : ''))
  const isGood = names.every((name) => name !== '') && new Set(names).size === names.length
  return isGood ? undefined : 'value does not look like [order=]N[,up=N][,down=N]'
}

/** `1`, `target`, or `source:target`. */
function pairOf(name: string): Format {
  return (text) => {
    const [source = '', target, ...rest] = text.split(':')
    if (text === '1') return undefined
    if (rest.length > 0) return 'value does not look like source:target'
    return checkFormat(name, source) ?? (target === undefined ? undefined : checkFormat(name, target))
  }
}

/** `key=value,key=value`, each key once, the first one with or without its name. */
function partsLike(keys: Readonly<Record<string, RegExp>>): Format {
  const [first = ''] = Object.keys(keys)
  return (text) => {
    const parts = text.split(',').map((part, at) => (at === 0 && !part.includes('=') ? `${first}=${part}` : part))
    const pairs = parts.map((part) => [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)] as const)
    const isGood = pairs.every(([key, value]) => Object.hasOwn(keys, key) && keys[key]?.test(value))
    const isEachOnce = new Set(pairs.map(([key]) => key)).size === pairs.length
    return isGood && isEachOnce ? undefined : `value does not look like a list of ${Object.keys(keys).join(', ')}`
  }
}

/** `key=value,…`: each key at most once, its value of the format it is named with. The complaint names the key. */
function partsOf(keys: Readonly<Record<string, string>>): Format {
  return (text) => {
    const parts = text.split(',').filter((part) => part.trim() !== '')
    const seen = new Set<string>()
    for (const part of parts.map((one) => one.trim())) {
      const [name, value] = [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)]
      const format = Object.hasOwn(keys, name) ? keys[name] : undefined
      if (format === undefined) return `'${part}' is none of ${Object.keys(keys).join('=, ')}=`
      if (seen.has(name)) return `${name}: given twice`
      seen.add(name)
      const complaint = checkFormat(format, value)
      if (complaint !== undefined) return `${name}: ${complaint}`
    }
    return undefined
  }
}

/** A path, or a volume, without anything that ends a line or a part of a property string, and without ways back. */
function pathComplaint(text: string): string | undefined {
  // oxlint-disable-next-line no-control-regex -- they end lines of the files such a value goes into.
  if (/[\u0000-\u001f\u007f,]/.test(text)) return 'value has control characters or a comma'
  const isClimbing = text.split('/').some((part) => part === '.' || part === '..')
  return isClimbing ? "value has '.' or '..' in its path" : undefined
}

const dnsLabel = '[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?'

const formats: Readonly<Record<string, Format>> = {
  'pve-vmid': matching(/^[1-9][0-9]{2,8}$/, 'value does not look like a valid VM ID'),
  'pve-node': matching(/^[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?$/, 'value does not look like a valid node name'),
  'pve-cpuset': matching(
    /^\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?)*$/,
    'value does not look like a list of processors such as 0,5,8-11',
  ),
  'pve-configid': matching(
    /^[a-zA-Z][a-zA-Z0-9_-]+$/,
    "value does not look like a valid configuration ID: a letter first, then letters, digits, '_' or '-'",
  ),
  'pve-storage-id': matching(/^[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]$/, 'value does not look like a valid storage ID'),
  'pve-volume-id': matching(
    /^[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]:[^\s:][^\s]*$/,
    'value does not look like a valid volume ID',
  ),
  'pve-bridge-id': matching(/^[-_.\w]+$/, 'value does not look like a valid bridge name'),
  'pve-iface': matching(
    /^(?=.{2,20}$)[a-zA-Z][a-zA-Z0-9_]+(?:[:.]\d+)?$/,
    'value does not look like a valid interface name',
  ),
  'graphite-path': matching(/^[a-zA-Z0-9_-]+(?:\.[a-zA-Z0-9_-]+)*$/, 'value does not look like a path of Graphite'),
  'pve-vlan-id-or-range': (text) => {
    const [, first, last = first] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(text) ?? []
    const isGood = Number(first) >= 1 && Number(last) <= 4094 && Number(first) <= Number(last)
    return isGood ? undefined : 'value does not look like a VLAN or a range of VLANs'
  },
  'pve-realm': matching(/^[A-Za-z][A-Za-z0-9._-]+$/, 'value does not look like a valid realm'),
  'pve-tfa-config': partsLike({
    type: /^(?:oath|yubico)$/,
    digits: /^[678]$/,
    step: /^[1-9][0-9]{1,2}$/,
    id: /^[a-zA-Z0-9]{0,64}$/,
    key: /^[a-zA-Z0-9+/=]{0,64}$/,
    url: /^https?:\/\/\S{1,128}$/,
  }),
  'realm-sync-options': partsLike({
    scope: /^(?:users|groups|both)$/,
    'remove-vanished': /^(?:none|(?:acl|properties|entry)(?:;(?:acl|properties|entry))*)$/,
    'enable-new': /^[01]$/,
    full: /^[01]$/,
    purge: /^[01]$/,
  }),
  'ldap-simple-attr': matching(/^[a-zA-Z0-9]+$/, 'value does not look like the name of an LDAP attribute'),
  'pve-userid': matching(
    /^(?=.{3,64}$)[^\s:/]+@[A-Za-z][A-Za-z0-9._-]+$/,
    'value does not look like a valid user name',
  ),
  'pve-tokenid': matching(
    /^[^\s:/]+@[A-Za-z][A-Za-z0-9._-]+![A-Za-z][A-Za-z0-9._-]+$/,
    'value does not look like a valid token ID',
  ),
  'pve-token-subid': matching(/^[A-Za-z][A-Za-z0-9._-]+$/, 'value does not look like a valid token ID'),
  'pve-groupid': matching(/^[A-Za-z0-9._-]+$/, 'value contains invalid characters'),
  'pve-roleid': matching(/^[A-Za-z0-9._-]+$/, 'value contains invalid characters'),
  'pve-poolid': matching(/^[A-Za-z0-9._-]+(?:\/[A-Za-z0-9._-]+){0,2}$/, 'value contains invalid characters'),
  'pve-tag': matching(/^[a-zA-Z0-9_][a-zA-Z0-9_+.-]*$/, 'value does not look like a valid tag'),
  'pve-upid': matching(
    /^UPID:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8}:[^:\s/]+:[^:\s/]*:[^:\s/]+@[^:\s/]+:$/i,
    'unable to parse worker upid',
  ),
  'pve-task-status-type': matching(/^(?:ok|error|warning|unknown)$/, 'value is not one of ok, error, warning, unknown'),
  'storage-pair': pairOf('pve-storage-id'),
  'bridge-pair': pairOf('pve-bridge-id'),
  ipv4mask: (text) => (isMask(text) ? undefined : 'value does not look like a valid IPv4 netmask'),
  'pve-priv': matching(/^[A-Za-z]+(?:\.[A-Za-z]+)+$/, 'value does not look like a privilege'),
  'pve-acl-path': matching(/^\/[^\s]*$/, 'value does not look like a path'),
  'pve-storage-content': matching(
    /^(?:images|rootdir|vztmpl|iso|backup|snippets|import|none)$/,
    'invalid content type',
  ),
  'pve-calendar-event': (text) => {
    const parsed = parseCalendarEvent(text)
    return parsed.ok ? undefined : parsed.complaint
  },
  'pve-day-of-week': matching(
    /^(?:mon|tue|wed|thu|fri|sat|sun)$/,
    'value is not one of mon, tue, wed, thu, fri, sat, sun',
  ),
  'email-or-username': matching(/^[^\s@]+(?:@[^\s@]+)?$/, 'value is neither an email address nor a user name'),
  'mac-prefix': matching(
    /^[a-fA-F0-9][02468aceACE](?::[a-fA-F0-9]{2}){2}(?::[a-fA-F0-9]{2}){0,2}:?$/,
    'value does not look like a valid unicast MAC address prefix',
  ),
  string: () => undefined,
  'pve-acme-domain': matching(
    new RegExp(`^(?:\\*\\.)?${dnsLabel}(?:\\.${dnsLabel})*$`),
    'value does not look like a domain of a certificate',
  ),
  'pve-acme-alias': matching(
    new RegExp(`^[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?(?:\\.${dnsLabel})*$`),
    'value does not look like an alias of a domain',
  ),
  'pve-startup-order': startupOrder,
  'pve-qm-ipconfig': partsOf({ ip: 'pve-ipv4-config', gw: 'ipv4', ip6: 'pve-ipv6-config', gw6: 'ipv6' }),
  'pve-qm-cicustom': partsOf({
    meta: 'pve-volume-id',
    network: 'pve-volume-id',
    user: 'pve-volume-id',
    vendor: 'pve-volume-id',
  }),
  'pve-lxc-mp-string': (text) => pathComplaint(text),
  'pve-lxc-dev-string': (text) => (text.startsWith('/dev/') ? pathComplaint(text) : 'value is not below /dev/'),
  'pve-ct-timezone': matching(
    /^(?:host|[A-Za-z0-9_+-]+(?:\/[A-Za-z0-9_+-]+){0,2})$/,
    'value does not look like a time zone such as Europe/Berlin',
  ),
  'lxc-ip-with-ll-iface': (text) => {
    const [address = '', link, ...rest] = text.split('%')
    const isGood = rest.length === 0 && isIP(address) > 0 && (link === undefined || /^[\w.-]{1,15}$/.test(link))
    return isGood ? undefined : 'value does not look like an IP address'
  },
  'pem-string': pem('[A-Z0-9 ]+'),
  'pem-certificate': pem('CERTIFICATE'),
  'pem-certificate-chain': pem('CERTIFICATE'),
  'disk-size': matching(/^\d+(?:\.\d+)?(?:[KMGT](?:iB)?)?$/, 'value does not look like a disk size'),
  'mac-addr': matching(
    /^[a-fA-F0-9][02468aceACE](?::[a-fA-F0-9]{2}){5}$/,
    'value does not look like a valid unicast MAC address',
  ),
  'dns-name': matching(new RegExp(`^${dnsLabel}(?:\\.${dnsLabel})*$`), 'value does not look like a valid DNS name'),
  email: matching(/^[^\s@]+@[^\s@]+$/, 'value does not look like a valid email address'),
  urlencoded: matching(/^[-%a-zA-Z0-9_.!~*'()]*$/, 'invalid urlencoded string'),
  ip: (text) => (isIP(text) ? undefined : 'value does not look like a valid IP address'),
  ipv4: (text) => (isIPv4(text) ? undefined : 'value does not look like a valid IPv4 address'),
  ipv6: (text) => (isIPv6(text) ? undefined : 'value does not look like a valid IPv6 address'),
  address: (text) => (isIP(text) ? undefined : formats['dns-name']?.(text)),
  CIDRv4: cidr(isIPv4, 32),
  CIDRv6: cidr(isIPv6, 128),
  CIDR: (text) => (text.includes(':') ? cidr(isIPv6, 128) : cidr(isIPv4, 32))(text),
  'pve-command-batch': (text) => batchComplaint(text),
  'pve-storage-server': (text) => formats['address']?.(text),
  'pve-storage-portal-dns': (text) => portalComplaint(text),
  'pve-ipv4-config': (text) => (text === 'dhcp' || text === 'manual' ? undefined : cidr(isIPv4, 32)(text)),
  'pve-ipv6-config': (text) => (['auto', 'dhcp', 'manual'].includes(text) ? undefined : cidr(isIPv6, 128)(text)),
}

/** A name or an address, and a port where it is another than the usual one. */
function portalComplaint(text: string): string | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const server = bracketed ?? plain ?? text
  if (port !== undefined && !(Number(port) >= 1 && Number(port) <= 65_535)) return 'value has no port from 1 to 65535'
  return formats['address']?.(server)
}

const batchMethods: readonly unknown[] = ['GET', 'POST', 'PUT', 'DELETE']
const longestBatch = 100

/** A JSON array of calls: `{"method":"GET","path":"version","args":{}}`. */
function batchComplaint(text: string): string | undefined {
  let calls: unknown
  try {
    calls = JSON.parse(text)
  } catch {
    return 'value is not JSON'
  }
  if (!Array.isArray(calls)) return 'value is not a JSON array of calls'
  if (calls.length > longestBatch) return `value has ${calls.length} calls: at most ${longestBatch} are taken`
  const wrong = calls.findIndex((call: unknown) => !isCall(call))
  return wrong < 0 ? undefined : `call ${wrong + 1} needs a method (GET, POST, PUT, DELETE), a path, and maybe args`
}

function isCall(call: unknown): boolean {
  if (typeof call !== 'object' || call === null) return false
  const { method, path, args, ...others } = call as Readonly<Record<string, unknown>>
  const isArgs = args === undefined || (typeof args === 'object' && args !== null && !Array.isArray(args))
  const isPath = typeof path === 'string' && path.length <= 4096
  return batchMethods.includes(method) && isPath && isArgs && Object.keys(others).length === 0
}

/** Ones, then zeros: `255.255.255.0`. */
function isMask(text: string): boolean {
  if (!isIPv4(text)) return false
  const bits = text.split('.').reduce((all, part) => all + Number(part).toString(2).padStart(8, '0'), '')
  return /^1*0*$/.test(bits)
}

/** Splits the text of a `-list` value; empty parts vanish. */
export function splitList(text: string): string[] {
  // oxlint-disable-next-line no-control-regex -- NUL is one of the four separators on the wire.
  return text.split(/[,;\0\s]+/).filter(Boolean)
}

export function isFormatName(name: string): boolean {
  return Object.hasOwn(formats, name.replace(/-(list|opt)$/, ''))
}

/**
 * Says what is wrong with `text`, or nothing.
 * @throws Error when no format has that name: a mistake in our own schema, found by its test.
 */
export function checkFormat(name: string, text: string): string | undefined {
  if (name.endsWith('-list')) {
    for (const part of splitList(text)) {
      const complaint = checkFormat(name.slice(0, -'-list'.length), part)
      if (complaint) return complaint
    }
    return undefined
  }
  if (name.endsWith('-opt')) return text === '' ? undefined : checkFormat(name.slice(0, -'-opt'.length), text)
  const format = Object.hasOwn(formats, name) ? formats[name] : undefined
  if (!format) throw new Error(`no format is called '${name}'`)
  return format(text)
}
