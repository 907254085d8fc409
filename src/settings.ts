/**
 * Where this node keeps its things and what it is called. The only reader of the environment.
 *
 * Several nodes can live on one machine: everything a node makes there carries its `instance`.
 */
import { homedir, hostname } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { reachOf } from '#host/web/reach.ts'

const defaultInstance = 'node'

export interface Settings {
  /** Up to 6 characters `[a-z0-9]`; prefixes every bridge, tap, table and cgroup. */
  readonly instance: string
  /** Name of the node in URLs. */
  readonly node: string
  /** Survives a reboot: store, tasks, keys, evidence. */
  readonly stateDir: string
  /** Sockets and pid files of running things. */
  readonly runDir: string
  /** What can be built again: guest images, the accelerator's verdict. */
  readonly cacheDir: string
  /** Stands for `/` where settings of the machine are written: a node that shares its machine has none, and writes none. */
  readonly machineRoot?: string
  /** The network this process is in is the node's to change: a node that shares it with others has none, and changes none. */
  readonly ownsNetwork?: boolean
  /** Block devices a node that shares its machine may write to; one that owns its machine may use every idle disk. */
  readonly devices?: readonly string[]
  readonly apiHost: string
  readonly apiPort: number
  /** Where viewers by SPICE connect, as to a proxy; 0 is any that is free. Absent: SPICE is not served. */
  readonly spicePort?: number
  /** `nat`: the node makes a bridge of its own with DHCP and address translation; `none`: it uses what is there. */
  readonly bridge: 'nat' | 'none'
  /** PEM file of authorities the node trusts beside the machine's own: ACME servers, OpenID providers, image registries. */
  readonly caFile?: string
  /** Where the node proves to an ACME server that a name leads to it. Servers of the world ask at 80. */
  readonly acmePort?: number
  /** QEMU of guest N runs as this uid plus N; the front process as this uid minus 1. */
  readonly uidBase: number
  /** Networks URLs of users may lead to beside the public ones, as `10.0.0.0/8`; `!10.0.0.0/8` forbids one. */
  readonly fetchNetworks?: readonly string[]
  /** Where templates of containers are listed, and the file with the keys that may sign the list. */
  readonly templateIndex?: { readonly url: string; readonly keyring: string }
}

/** Reads `HAKO_*` variables over the defaults of an installed node. @throws Fault `invalid` naming the variable. */
export function settingsFrom(env: Readonly<Record<string, string | undefined>> = process.env): Settings {
  const instance = env.HAKO_INSTANCE ?? defaultInstance
  if (!/^[a-z0-9]{1,6}$/.test(instance)) {
    throw new Fault('invalid', `HAKO_INSTANCE is '${instance}': it must be 1 to 6 lower-case letters or digits`)
  }
  return {
    instance,
    node: env.HAKO_NODE ?? hostLabel(),
    stateDir: env.HAKO_STATE_DIR ?? join('/var/lib/hakobune', instance),
    runDir: env.HAKO_RUN_DIR ?? join('/run/hakobune', instance),
    cacheDir: env.HAKO_CACHE_DIR ?? '/var/cache/hakobune',
    ...machineRootOf(instance, env.HAKO_MACHINE_ROOT),
    ...networkOf(instance, env.HAKO_NETWORK),
    ...(env.HAKO_DEVICES === undefined ? {} : { devices: env.HAKO_DEVICES.split(',').filter(Boolean) }),
    apiHost: env.HAKO_API_HOST ?? '127.0.0.1',
    apiPort: wholeNumber('HAKO_API_PORT', env.HAKO_API_PORT ?? '8006', 0, 65_535),
    ...spicePortOf(instance, env.HAKO_SPICE_PORT),
    bridge: oneOf('HAKO_BRIDGE', env.HAKO_BRIDGE ?? 'none', ['nat', 'none']),
    ...(env.HAKO_CA_FILE === undefined ? {} : { caFile: env.HAKO_CA_FILE }),
    ...(env.HAKO_ACME_PORT === undefined
      ? {}
      : { acmePort: wholeNumber('HAKO_ACME_PORT', env.HAKO_ACME_PORT, 1, 65_535) }),
    uidBase: wholeNumber('HAKO_UID_BASE', env.HAKO_UID_BASE ?? '1000000000', 100_000, 1_100_000_000),
    ...(env.HAKO_FETCH_NETWORKS === undefined ? {} : { fetchNetworks: networksIn(env.HAKO_FETCH_NETWORKS) }),
    ...templateIndexOf(env.HAKO_TEMPLATE_INDEX, env.HAKO_TEMPLATE_KEYRING),
  }
}

function templateIndexOf(url: string | undefined, keyring = ''): Pick<Settings, 'templateIndex'> {
  if (url === undefined || url === '') return {}
  if (!/^https?:/.test(url) || !URL.canParse(url)) {
    throw new Fault('invalid', `HAKO_TEMPLATE_INDEX is '${url}': it must be a URL`)
  }
  if (!isAbsolute(keyring)) {
    throw new Fault('invalid', `HAKO_TEMPLATE_KEYRING is '${keyring}': it must be the path of the keys that may sign`)
  }
  return { templateIndex: { url, keyring } }
}

function networksIn(text: string): string[] {
  const networks = text.split(/[\s,]+/).filter((one) => one !== '')
  try {
    reachOf(networks)
  } catch (cause) {
    throw new Fault('invalid', `HAKO_FETCH_NETWORKS is '${text}': it must be networks such as 10.0.0.0/8`, { cause })
  }
  return networks
}

/** Where the node keeps its state. */
export function storePathOf({ stateDir }: Pick<Settings, 'stateDir'>): string {
  return join(stateDir, 'store.sqlite')
}

/** The settings as variables, to hand them to a process of the same node. */
export function settingsToEnv(settings: Settings): Record<string, string> {
  return {
    HAKO_INSTANCE: settings.instance,
    HAKO_NODE: settings.node,
    HAKO_STATE_DIR: settings.stateDir,
    HAKO_RUN_DIR: settings.runDir,
    HAKO_CACHE_DIR: settings.cacheDir,
    ...(settings.machineRoot === undefined ? {} : { HAKO_MACHINE_ROOT: settings.machineRoot }),
    HAKO_NETWORK: settings.ownsNetwork === true ? 'own' : 'shared',
    ...(settings.devices === undefined ? {} : { HAKO_DEVICES: settings.devices.join(',') }),
    HAKO_API_HOST: settings.apiHost,
    HAKO_API_PORT: String(settings.apiPort),
    HAKO_SPICE_PORT: settings.spicePort === undefined ? 'off' : String(settings.spicePort),
    HAKO_BRIDGE: settings.bridge,
    ...(settings.caFile === undefined ? {} : { HAKO_CA_FILE: settings.caFile }),
    ...(settings.acmePort === undefined ? {} : { HAKO_ACME_PORT: String(settings.acmePort) }),
    HAKO_UID_BASE: String(settings.uidBase),
    ...(settings.fetchNetworks === undefined ? {} : { HAKO_FETCH_NETWORKS: settings.fetchNetworks.join(',') }),
    ...(settings.templateIndex === undefined
      ? {}
      : { HAKO_TEMPLATE_INDEX: settings.templateIndex.url, HAKO_TEMPLATE_KEYRING: settings.templateIndex.keyring }),
    // Node keeps there what it compiled, types stripped: a start takes a third of the time and 30 MiB less. Only
    // root may write there, because what lies there is run.
    NODE_COMPILE_CACHE: join(settings.cacheDir, 'compiled'),
  }
}

/** Where programs that somebody starts by hand keep what can be fetched again. */
export function cacheHome(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const { XDG_CACHE_HOME: given } = env
  return join(given !== undefined && isAbsolute(given) ? given : join(homedir(), '.cache'), 'hakobune')
}

/** The file that says that a node is a lab's. */
export function labMark({ stateDir }: Pick<Settings, 'stateDir'>): string {
  return join(stateDir, 'lab')
}

/** The bridge guests of this node are plugged into, when it makes one of its own. */
export function ownBridge({ instance }: Pick<Settings, 'instance'>): string {
  return `hk${instance}0`
}

/** The installed node (its instance has the default name) owns its machine. */
function machineRootOf(instance: string, given: string | undefined): { machineRoot?: string } {
  if (given !== undefined) return { machineRoot: given }
  return instance === defaultInstance ? { machineRoot: '/' } : {}
}

/** Clients know one port. The installed node has it; others say which they take, if any. */
function spicePortOf(instance: string, given: string | undefined): { spicePort?: number } {
  const text = given ?? (instance === defaultInstance ? '3128' : 'off')
  return text === 'off' ? {} : { spicePort: wholeNumber('HAKO_SPICE_PORT', text, 0, 65_535) }
}

/** The same holds for its network. Another node may own one where it has a network namespace to itself. */
function networkOf(instance: string, given: string | undefined): { ownsNetwork?: boolean } {
  const known = oneOf('HAKO_NETWORK', given ?? (instance === defaultInstance ? 'own' : 'shared'), ['own', 'shared'])
  return known === 'own' ? { ownsNetwork: true } : {}
}

function hostLabel(): string {
  const label = hostname().split('.')[0] ?? ''
  return /^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?$/.test(label) ? label : 'node'
}

function oneOf<const V extends string>(name: string, text: string, values: readonly V[]): V {
  const value = values.find((one) => one === text)
  if (value === undefined) throw new Fault('invalid', `${name} is '${text}': it must be one of ${values.join(', ')}`)
  return value
}

function wholeNumber(name: string, text: string, minimum: number, maximum: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    throw new Fault('invalid', `${name} is '${text}': it must be a whole number from ${minimum} to ${maximum}`)
  }
  return value
}
