/**
 * WebAuthn: security keys and passkeys as second factors. The protocol is `@simplewebauthn/server`'s; here is what
 * this node asks for and what it takes from the answers.
 *
 * The library is 30 MiB of memory and loaded when the first key is registered or used. Attestation is not asked
 * for: which make a key is decides nothing here. The password comes before it, so the key need not know its
 * owner (`discouraged`).
 */
import type { AuthenticationResponseJSON, RegistrationResponseJSON } from '@simplewebauthn/server'
import { Fault } from '#base/fault.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, optional, type PropertyFormat, string } from '#base/schema/schema.ts'
import { accessLimits } from '../limits.ts'
import type { WebauthnEntry } from './held.ts'

const word = optional(string({ maxLength: 256 }))

/** The cluster option `webauthn`. */
export const webauthnFormat: PropertyFormat = {
  'allow-subdomains': { schema: optional(boolean({ default: true })) },
  id: { schema: word },
  origin: { schema: word },
  rp: { schema: word },
}

/** Whom keys are made for. */
export interface RelyingParty {
  /** A domain; keys work on it and on nothing else. */
  readonly id: string
  readonly name: string
  readonly origin: string | undefined
  readonly allowsSubdomains: boolean
}

/** What was answered, with the challenge it answers and the address of the page it was made on. */
export interface Answer<R> {
  readonly response: R
  readonly challenge: string
  readonly origin: string
}

/** Nothing when the option is not set, or not enough of it. */
export function relyingParty(option: string | undefined): RelyingParty | undefined {
  if (option === undefined) return undefined
  const {
    id,
    rp,
    origin,
    'allow-subdomains': subdomains = true,
  } = readPropertyString(webauthnFormat, option, 'webauthn')
  if (typeof id !== 'string' || id === '') return undefined
  return {
    id,
    name: typeof rp === 'string' && rp !== '' ? rp : id,
    origin: typeof origin === 'string' && origin !== '' ? origin : undefined,
    allowsSubdomains: subdomains === true,
  }
}

/** @throws Fault `conflict` saying which option is missing */
export function requireRelyingParty(party: RelyingParty | undefined): RelyingParty {
  if (party) return party
  throw new Fault('conflict', 'WebAuthn is not configured on this cluster', {
    remedy: 'Set the option: hako cluster set --webauthn rp=<name>,id=<domain>,origin=https://<domain>:8006',
  })
}

/** Whether a page of this address may use the keys: https on the domain (or on this machine), and the configured origin. */
export function isAllowedOrigin({ id, origin, allowsSubdomains }: RelyingParty, address: string): boolean {
  if (origin !== undefined && address === originOf(origin)) return true
  if (origin !== undefined && !allowsSubdomains) return false
  const url = URL.parse(address)
  if (!url || url.origin !== address) return false
  const isSecure = url.protocol === 'https:' || (url.protocol === 'http:' && url.hostname === 'localhost')
  const isOwn = url.hostname === id || (allowsSubdomains && url.hostname.endsWith(`.${id}`))
  return isSecure && isOwn
}

/** Reads what a browser answered. Nothing when it has not the shape: it comes from anybody. */
export function readAnswer<R extends 'login' | 'registration'>(
  text: string,
): Answer<R extends 'login' ? AuthenticationResponseJSON : RegistrationResponseJSON> | undefined {
  try {
    const given = JSON.parse(text) as { id: unknown; rawId?: unknown; response: Record<string, unknown> }
    const response = Object.fromEntries(Object.entries(given.response).filter(([, value]) => typeof value === 'string'))
    const { challenge, origin } = JSON.parse(
      Buffer.from(String(response.clientDataJSON), 'base64url').toString('utf8'),
    ) as Record<string, unknown>
    if (typeof given.id !== 'string' || typeof challenge !== 'string' || typeof origin !== 'string') return undefined
    const whole: unknown = { id: given.id, rawId: given.id, type: 'public-key', clientExtensionResults: {}, response }
    // The library judges the rest of it field by field.
    return { response: whole as never, challenge, origin }
  } catch {
    return undefined // Not the shape, wherever it was left.
  }
}

/** What `navigator.credentials.create` wants, as text. */
export async function registrationOptions(
  party: RelyingParty,
  { userid, challenge, present }: { userid: string; challenge: string; present: readonly WebauthnEntry[] },
): Promise<string> {
  const { generateRegistrationOptions } = await import('@simplewebauthn/server')
  const publicKey = await generateRegistrationOptions({
    rpName: party.name,
    rpID: party.id,
    userName: userid,
    userDisplayName: userid,
    userID: new Uint8Array(Buffer.from(userid)),
    challenge: new Uint8Array(Buffer.from(challenge, 'base64url')),
    attestationType: 'none',
    excludeCredentials: present.map(({ credential }) => ({ id: credential })),
    authenticatorSelection: { residentKey: 'discouraged', userVerification: 'discouraged' },
    timeout: accessLimits.tfa.challengeSeconds * 1000,
  })
  return JSON.stringify({ publicKey })
}

/** What `navigator.credentials.get` wants. */
export async function loginOptions(
  party: RelyingParty,
  { challenge, present }: { challenge: string; present: readonly WebauthnEntry[] },
): Promise<{ publicKey: object }> {
  const { generateAuthenticationOptions } = await import('@simplewebauthn/server')
  const publicKey = await generateAuthenticationOptions({
    rpID: party.id,
    challenge: new Uint8Array(Buffer.from(challenge, 'base64url')),
    allowCredentials: present.map(({ credential }) => ({ id: credential })),
    userVerification: 'discouraged',
    timeout: accessLimits.tfa.challengeSeconds * 1000,
  })
  return { publicKey }
}

export type NewKey = Pick<WebauthnEntry, 'credential' | 'publicKey' | 'counter'>

/** The key somebody proved to hold, or nothing. Whether the challenge was ours is the caller's question. */
export async function provenKey(
  party: RelyingParty,
  { response, challenge, origin }: Answer<RegistrationResponseJSON>,
): Promise<NewKey | undefined> {
  if (!isAllowedOrigin(party, origin)) return undefined
  const { verifyRegistrationResponse } = await import('@simplewebauthn/server')
  const { verified, registrationInfo } = await verifyRegistrationResponse({
    response,
    expectedChallenge: challenge,
    expectedOrigin: origin,
    expectedRPID: party.id,
    requireUserVerification: false,
  }).catch(() => ({ verified: false, registrationInfo: undefined }))
  if (!verified || !registrationInfo) return undefined
  const { id, publicKey, counter } = registrationInfo.credential
  return { credential: id, publicKey: Buffer.from(publicKey).toString('base64'), counter }
}

/** The key's counter after a login it proved, or nothing. A counter that did not rise is a copied key and proves nothing. */
export async function provenCounter(
  party: RelyingParty,
  { response, challenge, origin }: Answer<AuthenticationResponseJSON>,
  { credential, publicKey, counter }: WebauthnEntry,
): Promise<number | undefined> {
  if (!isAllowedOrigin(party, origin)) return undefined
  const { verifyAuthenticationResponse } = await import('@simplewebauthn/server')
  const { verified, authenticationInfo } = await verifyAuthenticationResponse({
    response,
    expectedChallenge: challenge,
    expectedOrigin: origin,
    expectedRPID: party.id,
    credential: { id: credential, publicKey: new Uint8Array(Buffer.from(publicKey, 'base64')), counter },
    requireUserVerification: false,
  }).catch(() => ({ verified: false, authenticationInfo: undefined }))
  return verified ? authenticationInfo?.newCounter : undefined
}

function originOf(text: string): string {
  return URL.parse(text)?.origin ?? text
}
