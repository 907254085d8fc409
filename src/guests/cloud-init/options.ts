/**
 * What a guest is told by cloud-init: the options, and the rules that hold between them.
 *
 * A running guest was told the options it was started with. Later ones are pending, as those of hardware are, until
 * its drive is written anew.
 */
import { isFault } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import type { Errors } from '#base/schema/check.ts'
import { checkFormat } from '#base/schema/formats.ts'
import { boolean, enumOf, indexed, optional, string } from '#base/schema/schema.ts'
import { parseVolumeId } from '#storage/volume.ts'
import type { GuestConfig, Options, PendingItem } from '../config.ts'
import { nicCount } from '../qemu/nic.ts'

export const cloudInitOptions = {
  citype: optional(
    enumOf(['configdrive2', 'nocloud', 'opennebula'], {
      description: 'Layout of the cloud-init drive. Default: nocloud, and configdrive2 for Windows.',
    }),
  ),
  ciuser: optional(
    string({
      description: 'User who gets password and keys instead of the default one of the image.',
      pattern: /[^\s:/,'"]+/,
      maxLength: 64,
    }),
  ),
  cipassword: optional(
    string({ description: 'Password of that user; kept as a hash and never shown.', maxLength: 1024, isSecret: true }),
  ),
  ciupgrade: optional(boolean({ description: 'Upgrade all packages on the first boot.', default: true })),
  cicustom: optional(
    string({
      description: 'Snippets that take the place of generated parts: user=, network=, meta=, vendor=.',
      format: 'pve-qm-cicustom',
      maxLength: 2048,
    }),
  ),
  sshkeys: optional(
    string({ description: 'Public SSH keys, one a line, URL-encoded.', format: 'urlencoded', maxLength: 65_536 }),
  ),
  nameserver: optional(
    string({
      description: 'Addresses of DNS servers. Default: those of the node.',
      format: 'address-list',
      maxLength: 512,
    }),
  ),
  searchdomain: optional(string({ description: 'DNS search domains.', maxLength: 512 })),
  ...indexed(
    'ipconfig',
    nicCount,
    string({
      description: 'Addresses of the card of that number: ip=, gw=, ip6=, gw6=; without one, DHCP.',
      format: 'pve-qm-ipconfig',
      maxLength: 256,
    }),
  ),
} as const

/** Shown instead of a password, and no password therefore. */
export const maskedPassword = '**********'

/** The same options, for somebody to see. */
export function withoutSecrets(options: Options): Options {
  return options.cipassword === undefined ? options : { ...options, cipassword: maskedPassword }
}

export function isCloudInitOption(name: string): boolean {
  return Object.hasOwn(cloudInitOptions, name)
}

export const snippetKinds = ['user', 'network', 'meta', 'vendor'] as const
export type SnippetKind = (typeof snippetKinds)[number]

/** Volume of each snippet named by `cicustom`. */
export function snippetsOf({ cicustom = '' }: Options): Partial<Record<SnippetKind, string>> {
  const parts = cicustom.split(',').map((part) => part.trim().split('='))
  return Object.fromEntries(
    snippetKinds.flatMap((kind) => parts.filter(([name]) => name === kind).map(([, volume]) => [kind, volume])),
  )
}

/** `ip=10.0.0.5/24,gw=10.0.0.1` taken apart. */
export function ipConfigOf(text: string): Partial<Record<'ip' | 'gw' | 'ip6' | 'gw6', string>> {
  const parts = text.split(',').map((part) => part.trim().split('='))
  return Object.fromEntries(parts.filter(([, value]) => value !== undefined))
}

/** The keys, decoded, without empty lines. @throws URIError */
export function sshKeysOf({ sshkeys = '' }: Options): string[] {
  return decodeURIComponent(sshkeys)
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter(Boolean)
}

export function isWindows({ ostype = 'other' }: Options): boolean {
  return /^(w2k|wxp|wvista|win)/.test(ostype)
}

export function cloudInitErrors(options: Options): Errors {
  const complaints: Record<string, string | undefined> = {
    sshkeys: complaintAboutKeys(options),
    cicustom: complaintAboutSnippets(options),
    searchdomain: checkFormat('dns-name-list', options.searchdomain ?? ''),
    nameserver: checkFormat('ip-list', options.nameserver ?? ''),
    cipassword:
      options.cipassword !== undefined && isWindows(options)
        ? 'Windows takes a password in clear only, which is not kept: set it in the guest, or by a snippet (cicustom)'
        : undefined,
  }
  for (const [name, text] of Object.entries(options)) {
    if (/^ipconfig\d+$/.test(name)) complaints[name] = complaintAboutAddresses(text)
  }
  return Object.fromEntries(
    Object.entries(complaints).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
}

function complaintAboutAddresses(text: string): string | undefined {
  const parts = ipConfigOf(text)
  for (const [gateway, address] of [
    ['gw', 'ip'],
    ['gw6', 'ip6'],
  ] as const) {
    if (parts[gateway] !== undefined && parts[address]?.includes('/') !== true) {
      return `${gateway}: a gateway needs an address beside it: ${address}=<address>/<bits>`
    }
  }
  return undefined
}

/** Options of a key may stand before its kind. */
const keyPattern = /^(?:[^#].*\s)?(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+\s+[A-Za-z0-9+/]{16,}={0,3}(?:\s.*)?$/

function complaintAboutKeys(options: Options): string | undefined {
  try {
    const wrong = sshKeysOf(options).findIndex((line) => !keyPattern.test(line) || /\p{Cc}/u.test(line))
    return wrong === -1 ? undefined : `line ${wrong + 1} is no public SSH key`
  } catch (error) {
    if (error instanceof URIError) return 'invalid urlencoded string'
    throw error
  }
}

function complaintAboutSnippets(options: Options): string | undefined {
  for (const [kind, volume] of Object.entries(snippetsOf(options))) {
    if (options.citype === 'opennebula' && kind !== 'user') {
      return `${kind}: layout 'opennebula' (citype) has no place for it, only for user`
    }
    if (!isSnippet(volume)) return `${kind}: '${volume}' is no snippet: <storage>:snippets/<file>`
  }
  return undefined
}

function isSnippet(volume: string): boolean {
  try {
    const { name } = parseVolumeId(asVolumeId(volume))
    return name.kind === 'file' && name.content === 'snippets'
  } catch (fault) {
    if (isFault(fault, 'invalid')) return false
    throw fault
  }
}

/** What a guest is told; the rest of its drive follows from its cards. */
function isTold(name: string): boolean {
  return isCloudInitOption(name) || name === 'name'
}

/** The options its drive is made of now: of a running guest its hardware, and of what is told the latest. */
export function toldOptions({ options, running }: GuestConfig): Options {
  if (!running) return options
  return Object.fromEntries([
    ...Object.entries(running).filter(([name]) => !isTold(name)),
    ...Object.entries(options).filter(([name]) => isTold(name)),
  ])
}

/** What the guest was told, and what it would be told. Of a stopped guest both are the same: it is told at its start. */
export function cloudInitItems({ options, running = options }: GuestConfig): PendingItem[] {
  const names = [...new Set([...Object.keys(options), ...Object.keys(running)])].filter(isTold)
  return names.toSorted().map((key) => {
    const [value, wanted] = [running[key], options[key]]
    return {
      key,
      ...(value === undefined ? {} : { value }),
      ...(wanted === undefined || wanted === value ? {} : { pending: wanted }),
      isDeleted: wanted === undefined,
    }
  })
}
