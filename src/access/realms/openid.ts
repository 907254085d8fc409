/**
 * What a realm makes of an OpenID provider: how it is asked, and who somebody it confirms is here.
 *
 * Groups are called `<group>-<realm>`, as those of a directory, so that a provider never names one that somebody made
 * by hand. A provider that does not say the claim at all changes no groups: a forgotten scope looks the same.
 */
import { Fault, invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import {
  type AuthorizationWish,
  type Claims,
  isSafeAddress,
  type ProviderAddress,
  type RedeemWish,
} from '#host/web/openid.ts'
import type { Write } from '#store/store.ts'
import { accessLimits } from '../limits.ts'
import type { RealmConfig } from '../realm-options.ts'
import { isUserId } from '../user.ts'
import { keyOf, type User, type World } from '../world.ts'

/** What the claim is called whose word people use. */
const knownClaims: Readonly<Record<string, string>> = { subject: 'sub', username: 'preferred_username' }

/** Why the issuer cannot be asked, or nothing. */
export function whyNoIssuer(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) return 'value is no URL'
  if (url.username !== '' || url.password !== '') return 'an issuer holds no password'
  return isSafeAddress(url) ? undefined : 'an issuer is asked by https, unless it is on this machine (http://127.0.0.1)'
}

/** @throws Fault `invalid` for an address a provider must not send a code to */
export function requireRedirectUrl(text: string): void {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isPlain = url?.username === '' && url.password === '' && !text.includes('#')
  if (url !== undefined && isPlain && isSafeAddress(url)) return
  throw invalid({ 'redirect-url': 'value is no https address without password and fragment (http only to localhost)' })
}

export function providerAddress(
  { options }: RealmConfig,
  clientKey: string | undefined,
  trusted: readonly string[],
): ProviderAddress {
  return { issuer: String(options['issuer-url']), clientId: String(options['client-id']), clientKey, trusted }
}

export function authorizationWish({ options }: RealmConfig): AuthorizationWish {
  const scopes = splitList(typeof options.scopes === 'string' ? options.scopes : 'email profile')
  const acrValues = splitList(String(options['acr-values'] ?? '')).join(' ')
  return {
    scopes: [...new Set(['openid', ...scopes])],
    ...(typeof options.prompt === 'string' ? { prompt: options.prompt } : {}),
    ...(acrValues === '' ? {} : { acrValues }),
  }
}

export function redeemWish({ options }: RealmConfig): RedeemWish {
  return {
    withUserinfo: options['query-userinfo'] !== false,
    audiences: splitList(String(options.audiences ?? '')),
  }
}

/** @throws Fault `unauthenticated` when the claims name nobody who can be a user */
export function userIdIn(claims: Claims, realm: string, { options }: RealmConfig): string {
  const wanted = String(options['username-claim'] ?? 'subject')
  const claim = knownClaims[wanted] ?? wanted
  const name = claims[claim]
  if (typeof name !== 'string' || name === '') {
    throw refusal(`the OpenID provider does not say '${claim}', by which the realm '${realm}' knows its users`, {
      remedy: 'Look at username-claim and scopes of the realm.',
    })
  }
  if (claim === 'email' && claims.email_verified === false) {
    throw refusal('the OpenID provider has not verified the mail address that would name the user')
  }
  const userid = `${name}@${realm}`
  if (isUserId(userid)) return userid
  throw refusal(
    `'${claim}' of the OpenID provider cannot be the name of a user here: ${JSON.stringify(name).slice(0, 80)}`,
  )
}

export interface Arrival {
  readonly writes: Write[]
  /** For the log. */
  readonly notes: string[]
}

/** Makes user and groups what the realm says they become when somebody comes. */
export function arrivalOf(world: World, userid: string, realm: string, claims: Claims): Arrival {
  const config = world.realms.get(realm)
  if (config?.type !== 'openid') throw refusal(`there is no OpenID realm '${realm}' any more`)
  const before = world.users.get(userid)
  if (before === undefined && config.options.autocreate !== true) {
    throw refusal(`no such user ('${userid}')`, {
      remedy: `An administrator can create the user, or set autocreate of the realm '${realm}'.`,
    })
  }
  const user = before ?? newUser(claims)
  const { made, groups, notes } = groupsOf(world, user, { realm, config, claims })
  const isSame = before !== undefined && before.groups.join() === groups.join()
  return {
    writes: [
      ...made.map((id) => ({ put: keyOf.group(id), value: { comment: `of the OpenID realm ${realm}` } })),
      ...(isSame ? [] : [{ put: keyOf.user(userid), value: { ...user, groups } }]),
    ],
    notes: [...(before ? [] : [`user '${userid}': new`]), ...made.map((id) => `group '${id}': new`), ...notes],
  }
}

function newUser(claims: Claims): User {
  const facts = { firstname: claims.given_name, lastname: claims.family_name, email: claims.email }
  const told = Object.entries(facts).filter(
    ([name, value]) => typeof value === 'string' && value.length <= 254 && isFact(name, value),
  )
  return { enable: true, expire: 0, groups: [], ...(Object.fromEntries(told) as Partial<User>) }
}

function isFact(name: string, value: string): boolean {
  return name === 'email' ? /^[^\s@\p{Cc}]+@[^\s@\p{Cc}]+$/u.test(value) : /^[^\p{Cc}]+$/u.test(value)
}

function groupsOf(
  world: World,
  user: User,
  { realm, config: { options }, claims }: { realm: string; config: RealmConfig; claims: Claims },
): { made: string[]; groups: readonly string[]; notes: string[] } {
  const claim = options['groups-claim']
  if (typeof claim !== 'string') return { made: [], groups: user.groups, notes: [] }
  const value = claims[claim]
  const named = (Array.isArray(value) ? value : [value]).filter((one) => typeof one === 'string')
  if (value === undefined || (named.length === 0 && !Array.isArray(value))) {
    return { made: [], groups: user.groups, notes: [`the claim '${claim}' is missing, or names no groups`] }
  }
  if (named.length > accessLimits.openid.groups) {
    throw refusal(`the OpenID provider names more than ${accessLimits.openid.groups} groups`)
  }
  const ids = [...new Set(named.map((name) => `${name}-${realm}`))]
  const fit = ids.filter((id) => /^[A-Za-z0-9._-]{1,64}$/.test(id))
  const notes = fit.length === ids.length ? [] : [`${ids.length - fit.length} groups have names no group has here`]
  const isMade = options['groups-autocreate'] === true
  const given = fit.filter((id) => isMade || world.groups.has(id))
  const kept = options['groups-overwrite'] === true ? [] : user.groups
  return {
    made: given.filter((id) => !world.groups.has(id)),
    groups: [...new Set([...kept, ...given])].toSorted(),
    notes,
  }
}

export function refusal(text: string, details: { remedy?: string } = {}): Fault {
  return new Fault('unauthenticated', text, details)
}
