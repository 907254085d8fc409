/**
 * What is on the drive, from the options alone: files with their content, and the label they are found by.
 *
 * The instance id says to cloud-init whether this is still the machine it has set up. It follows from what the guest
 * is told and from its own identity, and from nothing else: a node that changes its name servers, or writes files in
 * another order after an update, must not make its guests set themselves up anew.
 */
import { createHash } from 'node:crypto'
import { splitList } from '#base/schema/formats.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import type { Options } from '../config.ts'
import { isOn } from '../config.ts'
import { toYaml } from '../yaml.ts'
import { nicsOf } from '../qemu/nic.ts'
import { smbiosFormat } from '../qemu/smbios.ts'
import { contextFile, networkVariables, printVariables } from './context.ts'
import { type Dns, networkConfigV1, networkDataJson, networkOf } from './network.ts'
import { isCloudInitOption, isWindows, type SnippetKind, sshKeysOf } from './options.ts'

export interface SeedFacts {
  readonly vmid: number
  /** Name servers and domains of the node. */
  readonly dns: Dns
  /** Content of the snippets `cicustom` names. */
  readonly snippets: Partial<Record<SnippetKind, Uint8Array>>
}

export interface Seed {
  readonly label: string
  /** By path on the drive. */
  readonly files: Readonly<Record<string, string | Uint8Array>>
  /** The parts people ask for, as they are on the drive. */
  readonly parts: Readonly<Record<'user' | 'network' | 'meta', string | Uint8Array>>
}

export function seedOf(options: Options, facts: SeedFacts): Seed {
  const type = options.citype ?? (isWindows(options) ? 'configdrive2' : 'nocloud')
  if (type === 'opennebula') return context(options, facts)
  return type === 'configdrive2' ? configDrive(options, facts) : noCloud(options, facts)
}

function context(options: Options, { vmid, dns, snippets }: SeedFacts): Seed {
  const user = snippets.user ?? userData(options, vmid)
  const { hostname, fqdn = hostname } = namesOf(options, vmid)
  const keys = sshKeysOf(options)
  const meta = printVariables({
    SET_HOSTNAME: fqdn,
    USERNAME: options.ciuser,
    SSH_PUBLIC_KEY: keys.length === 0 ? undefined : keys.join('\n'),
  })
  const network = printVariables(networkVariables(networkOf(options, dns)))
  const encoded = { USER_DATA: Buffer.from(user).toString('base64'), USERDATA_ENCODING: 'base64' }
  const files = { [contextFile]: `${meta}${network}${printVariables(encoded)}` }
  return { label: 'CONTEXT', files, parts: { user, network, meta } }
}

function noCloud(options: Options, facts: SeedFacts): Seed {
  const { snippets } = facts
  const user = snippets.user ?? userData(options, facts.vmid)
  const network = snippets.network ?? yaml(networkConfigV1(networkOf(options, facts.dns)))
  const { hostname } = namesOf(options, facts.vmid)
  const meta = snippets.meta ?? yaml({ 'instance-id': instanceId(options, facts), 'local-hostname': hostname })
  const files = {
    'meta-data': meta,
    'user-data': user,
    'network-config': network,
    'vendor-data': snippets.vendor ?? '',
  }
  return { label: 'cidata', files, parts: { user, network, meta } }
}

/** Where a network of one's own goes that is no JSON: Debian's `interfaces`, as OpenStack once had it. */
const oldNetworkPath = '/content/0000'

function configDrive(options: Options, facts: SeedFacts): Seed {
  const { snippets, vmid } = facts
  const told = networkOf(options, facts.dns)
  const user = snippets.user ?? userData(options, vmid)
  const network = snippets.network ?? json(networkDataJson(told))
  const isOld = !isJson(network)
  const meta = snippets.meta ?? json({ ...metaData(options, facts), ...(isOld ? oldNetwork : {}) })
  const vendor = snippets.vendor ?? '{}'
  return {
    label: 'config-2',
    files: {
      'openstack/latest/meta_data.json': meta,
      'openstack/latest/user_data': user,
      [isOld ? `openstack${oldNetworkPath}` : 'openstack/latest/network_data.json']: network,
      'openstack/latest/vendor_data.json': isJson(vendor) ? vendor : json({ 'cloud-init': textOf(vendor) }),
    },
    parts: { user, network, meta },
  }
}

const oldNetwork = { network_config: { content_path: oldNetworkPath } }

function metaData(options: Options, facts: SeedFacts): object {
  const { hostname } = namesOf(options, facts.vmid)
  const keys = sshKeysOf(options).map((key, number) => [`key-${number}`, key] as const)
  return { uuid: instanceId(options, facts), hostname, name: hostname, public_keys: Object.fromEntries(keys) }
}

/** The first label of the name, and the whole. */
function namesOf(options: Options, vmid: number): { hostname: string; fqdn?: string } {
  const name = nameIn(options, vmid)
  const [hostname = name] = name.split('.')
  if (hostname !== name) return { hostname, fqdn: name }
  const [domain] = splitList(options.searchdomain ?? '')
  return domain === undefined ? { hostname } : { hostname, fqdn: `${hostname}.${domain}` }
}

function nameIn({ name }: Options, vmid: number): string {
  return name ?? `VM${vmid}`
}

function userData(options: Options, vmid: number): string {
  const { ciuser, cipassword } = options
  const keys = sshKeysOf(options)
  const { hostname, fqdn } = namesOf(options, vmid)
  return `#cloud-config\n${yaml({
    hostname,
    manage_etc_hosts: true,
    ...(fqdn === undefined ? {} : { fqdn }),
    ...(ciuser === undefined ? {} : { user: ciuser }),
    ...(ciuser === 'root' ? { disable_root: false } : {}),
    ...(cipassword === undefined ? {} : { password: cipassword }),
    ...(keys.length > 0 ? { ssh_authorized_keys: keys } : {}),
    chpasswd: { expire: false },
    users: ['default'],
    package_upgrade: isOn(options.ciupgrade, true),
  })}`
}

/** In the form of a UUID, as OpenStack has it. */
function instanceId(options: Options, { vmid, snippets }: SeedFacts): string {
  const smbios = options.smbios1 === undefined ? {} : readPropertyString(smbiosFormat, options.smbios1, 'smbios1')
  const hash = createHash('sha256').update(JSON.stringify(String(smbios.uuid ?? vmid)))
  const told = Object.entries({ ...options, name: nameIn(options, vmid) }).filter(
    ([name]) => isCloudInitOption(name) || name === 'name',
  )
  const cards = nicsOf(options).map(({ name, mac }) => [name, mac.toLowerCase()])
  for (const [name, value] of [...told, ...cards].toSorted(([a], [b]) => ((a ?? '') < (b ?? '') ? -1 : 1))) {
    hash.update(JSON.stringify([name, value]))
  }
  for (const [kind, content] of Object.entries(snippets).toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(JSON.stringify([kind, content.length])).update(content)
  }
  return hash.digest('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, '$1-$2-$3-$4-$5')
}

/** Every text in quotes: what a guest reads may be YAML 1.1, to which `on` is true and `10:20` a number. */
function yaml(value: object): string {
  return toYaml(value, { defaultStringType: 'QUOTE_DOUBLE', defaultKeyType: 'PLAIN', lineWidth: 0 })
}

function json(value: object): string {
  return `${JSON.stringify(value, undefined, 2)}\n`
}

function isJson(content: string | Uint8Array): boolean {
  try {
    JSON.parse(textOf(content))
    return true
  } catch {
    return false
  }
}

export function textOf(content: string | Uint8Array): string {
  return typeof content === 'string' ? content : Buffer.from(content).toString('utf8')
}
