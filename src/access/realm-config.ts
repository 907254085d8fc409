/**
 * Realms as they are configured: all in one document, so that never two of them are the default.
 *
 * `pam` and `pve` are always there, stored or not. A realm of a directory is where users come from (`sync`); users of
 * an OpenID realm log in at its provider (`openid-login.ts`). A password for either is refused, in `login.ts`.
 */
import { createHash } from 'node:crypto'
import { Fault, invalid, missing } from '#base/fault.ts'
import type { Json, Write } from '#store/store.ts'
import { aclRemovals } from './acl-change.ts'
import {
  builtInRealms,
  optionsOf,
  type RealmConfig,
  type RealmOptionName,
  type Realms,
  type RealmType,
  type RealmValues,
  requiredOf,
  secretOptions,
} from './realm-options.ts'
import { whyNoIssuer } from './realms/openid.ts'
import { keyOf, type World } from './world.ts'

/** @throws Fault `missing`: `realm 'x' does not exist` */
export function requireRealmConfig(realms: Realms, realm: string): RealmConfig {
  const config = realms.get(realm)
  if (!config) throw missing('realm', realm)
  return config
}

/** Whether users of the realm need a one-time password: `{ type: 'oath' }`, or nothing. */
export function tfaOf(config: RealmConfig | undefined): 'oath' | undefined {
  return typeof config?.options.tfa === 'string' ? 'oath' : undefined
}

export function realmDigest({ type, options }: RealmConfig): string {
  const sorted = Object.entries(options)
    .filter(([, value]) => value !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
  return createHash('sha1')
    .update(JSON.stringify([type, sorted]))
    .digest('hex')
}

export function realmCreation(world: World, realm: string, type: RealmType, given: RealmValues): Write[] {
  if (world.realms.has(realm)) throw new Fault('conflict', `realm '${realm}' already exists`)
  if (type === 'pam' || type === 'pve') {
    throw invalid({ type: `there is one realm of the type ${type}, and it is called ${type}` })
  }
  return [
    ...realmWrites(world, realm, { type, options: withoutSecrets(given) }),
    ...secretOptions.flatMap((name) => secretWrite(realm, name, given[name])),
  ]
}

export interface RealmChange {
  readonly set: RealmValues
  readonly remove: readonly string[]
  readonly digest?: string | undefined
}

export function realmUpdate(world: World, realm: string, { set, remove, digest }: RealmChange): Write[] {
  const before = requireRealmConfig(world.realms, realm)
  if (digest !== undefined && digest !== realmDigest(before)) {
    throw new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
  }
  const known: readonly string[] = optionsOf[before.type]
  const unknown = remove.find((name) => !known.includes(name))
  if (unknown !== undefined)
    throw invalid({ delete: `'${unknown}' is no option of a realm of the type ${before.type}` })
  const kept = Object.entries(before.options).filter(([name]) => !remove.includes(name))
  const options = { ...Object.fromEntries(kept), ...withoutSecrets(set) }
  return [
    ...realmWrites(world, realm, { type: before.type, options }, set),
    ...secretOptions.flatMap((name) =>
      set[name] === undefined && remove.includes(name)
        ? [{ delete: keyOf.realmSecret(realm, name) }]
        : secretWrite(realm, name, set[name]),
    ),
  ]
}

/** A realm leaves with its secrets and permissions. Its users stay, and nobody is let in as one of them. */
export function realmDeletion(world: World, realm: string): Write[] {
  requireRealmConfig(world.realms, realm)
  if (builtInRealms.has(realm)) throw new Fault('conflict', `realm '${realm}' is built in and cannot be deleted`)
  const left = new Map([...world.realms].filter(([name]) => name !== realm))
  return [
    { put: keyOf.realms, value: asStored(left) },
    ...secretOptions.map((name) => ({ delete: keyOf.realmSecret(realm, name) })),
    ...aclRemovals(world, ({ path }) => path === `/access/realm/${realm}`),
  ]
}

function realmWrites(world: World, realm: string, config: RealmConfig, given: RealmValues = config.options): Write[] {
  requireFit(config, given)
  const others = [...world.realms].map(([name, other]): [string, RealmConfig] => {
    const { default: _, ...options } = other.options
    return [name, config.options.default === true ? { ...other, options } : other]
  })
  return [{ put: keyOf.realms, value: asStored(new Map([...others, [realm, config]])) }]
}

/** Every option belongs to the type, and all the type needs are there. */
function requireFit({ type, options }: RealmConfig, given: RealmValues): void {
  const known: readonly string[] = optionsOf[type]
  const wrong = Object.entries({ ...options, ...given })
    .filter(([name, value]) => value !== undefined && !known.includes(name))
    .map(([name]) => [name, `a realm of the type ${type} has no such option`])
  const absent = requiredOf[type]
    .filter((name) => options[name] === undefined || options[name] === '')
    .map((name) => [name, `a realm of the type ${type} needs it`])
  const fields = Object.fromEntries([...wrong, ...absent]) as Record<string, string>
  if (String(options.tfa ?? '').includes('yubico')) {
    fields.tfa = "yubico asks a service outside of this node and is not served; 'type=oath' is"
  }
  const issuer = type === 'openid' ? whyNoIssuer(String(options['issuer-url'] ?? '')) : undefined
  if (issuer !== undefined) fields['issuer-url'] ??= issuer
  if (Object.keys(fields).length > 0) throw invalid(fields)
}

function withoutSecrets(values: RealmValues): RealmValues {
  const isTold = ([name, value]: [string, unknown]) =>
    value !== undefined && name !== 'check-connection' && !secretOptions.some((secret) => secret === name)
  return Object.fromEntries(Object.entries(values).filter(isTold))
}

function secretWrite(realm: string, name: RealmOptionName, value: RealmValues[string]): Write[] {
  return typeof value === 'string' ? [{ put: keyOf.realmSecret(realm, name), value }] : []
}

function asStored(realms: Realms): Json {
  return JSON.parse(JSON.stringify(Object.fromEntries(realms))) as Json
}
