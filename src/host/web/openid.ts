/**
 * An OpenID provider, asked. The protocol is `openid-client`'s, loaded when somebody logs in through a provider first.
 *
 * What a provider says comes from somebody else: its answers are bounded in size and time, its signatures are checked
 * against its own keys, and it is asked over TLS, but for one on this very machine.
 */
import type { IncomingMessage } from 'node:http'
import { Agent, request as requestHttps } from 'node:https'
import { BlockList, isIP } from 'node:net'
import type { Configuration, CustomFetch, CustomFetchOptions, ServerMetadata } from 'openid-client'
import { MiB } from '#base/bytes.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { trusting } from './trusted.ts'

// By name: an ordinary import reads every export, and reading one of them loads undici.
const { request: requestHttp } = process.getBuiltinModule('node:http')

export interface ProviderAddress {
  readonly issuer: string
  readonly clientId: string
  /** Without it the node proves itself by the attempt's verifier alone. */
  readonly clientKey: string | undefined
  /** PEM of the authorities that may have signed for the provider. */
  readonly trusted: readonly string[]
}

/** What belongs to one log-in and is known to it alone. */
export interface Attempt {
  readonly redirectUrl: string
  readonly state: string
  readonly nonce: string
  readonly verifier: string
}

export interface AuthorizationWish {
  readonly scopes: readonly string[]
  readonly prompt?: string | undefined
  readonly acrValues?: string | undefined
}

export type Claims = Readonly<Record<string, unknown>>

export interface RedeemWish {
  /** Ask for what the token does not say. */
  readonly withUserinfo: boolean
  /** For whom the token may be beside this node. */
  readonly audiences: readonly string[]
}

export interface Provider {
  /** Where the user's browser goes. */
  readonly authorizationUrl: (attempt: Attempt, wish: AuthorizationWish) => Promise<string>
  /** What the provider says of the user who came back with the code. */
  readonly redeem: (attempt: Attempt, code: string, wish: RedeemWish) => Promise<Claims>
}

export const providerLimits = { answerBytes: MiB, answerSeconds: 10 }

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** Whether nobody on the way can read or change what is sent there. */
export function isSafeAddress(url: URL): boolean {
  if (url.protocol === 'https:') return true
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const family = isIP(host)
  const isHere = family === 0 ? host === 'localhost' : loopback.check(host, family === 6 ? 'ipv6' : 'ipv4')
  return url.protocol === 'http:' && isHere
}

/** Reads what the provider says of itself. @throws Fault `unavailable` */
export async function openProvider(address: ProviderAddress): Promise<Provider> {
  const { allowInsecureRequests, customFetch, discovery } = await import('openid-client')
  const ask = asking(address.trusted)
  try {
    const found = await discovery(new URL(address.issuer), address.clientId, undefined, undefined, {
      [customFetch]: ask,
      timeout: providerLimits.answerSeconds,
      // `asking` decides what is safe.
      execute: [allowInsecureRequests],
    })
    return providerOver(found.serverMetadata(), address, ask)
  } catch (error) {
    const why = reasonOf(error)
    throw new Fault('unavailable', `the OpenID provider '${address.issuer}' cannot be used: ${why}`, { cause: error })
  }
}

function providerOver(server: ServerMetadata, address: ProviderAddress, ask: CustomFetch): Provider {
  return {
    async authorizationUrl({ redirectUrl, state, nonce, verifier }, { scopes, prompt, acrValues }) {
      const { buildAuthorizationUrl, calculatePKCECodeChallenge } = await import('openid-client')
      const url = buildAuthorizationUrl(await configured(server, address, ask), {
        response_type: 'code',
        redirect_uri: redirectUrl,
        scope: scopes.join(' '),
        state,
        nonce,
        code_challenge: await calculatePKCECodeChallenge(verifier),
        code_challenge_method: 'S256',
        ...(prompt === undefined ? {} : { prompt }),
        ...(acrValues === undefined ? {} : { acr_values: acrValues }),
      })
      if (isSafeAddress(url)) return url.href
      throw new Fault('unavailable', `the OpenID provider '${address.issuer}' lets its users log in without TLS`)
    },
    async redeem(attempt, code, wish) {
      const config = await configured(server, address, withRedirect(ask, attempt.redirectUrl))
      try {
        return await claimsFor(config, attempt, code, wish)
      } catch (error) {
        if (isFault(error)) throw error
        if (isFault(causeOf(error))) throw causeOf(error)
        throw new Fault('unauthenticated', `the OpenID provider does not confirm the log-in: ${reasonOf(error)}`, {
          cause: error,
        })
      }
    },
  }
}

async function configured(server: ServerMetadata, { clientId, clientKey }: ProviderAddress, ask: CustomFetch) {
  const client = await import('openid-client')
  const { token_endpoint_auth_methods_supported: methods = ['client_secret_basic'] } = server
  // A client of Proxmox VE's API hands over code and state alone: that it came from this issuer, the state says.
  const plain = { ...server, authorization_response_iss_parameter_supported: false }
  const proof = methods.includes('client_secret_basic') ? client.ClientSecretBasic : client.ClientSecretPost
  const auth = clientKey === undefined ? client.None() : proof(clientKey)
  const config = new client.Configuration(plain, clientId, undefined, auth)
  client.allowInsecureRequests(config)
  client.enableNonRepudiationChecks(config)
  config[client.customFetch] = ask
  config.timeout = providerLimits.answerSeconds
  return config
}

async function claimsFor(config: Configuration, attempt: Attempt, code: string, wish: RedeemWish): Promise<Claims> {
  const { authorizationCodeGrant, fetchUserInfo } = await import('openid-client')
  const { state, nonce, verifier } = attempt
  const returned = new URL(`http://localhost/?${new URLSearchParams({ code, state }).toString()}`)
  const checks = { expectedState: state, expectedNonce: nonce, pkceCodeVerifier: verifier, idTokenExpected: true }
  const tokens = await authorizationCodeGrant(config, returned, checks)
  const claims = tokens.claims()
  if (claims === undefined) throw new Error('there is no ID token')
  const accepted = [config.clientMetadata().client_id, ...wish.audiences]
  const other = [claims.aud].flat().find((audience) => !accepted.includes(audience))
  if (other !== undefined) throw new Error(`the token is for ${printable(other)} too`)
  const { userinfo_endpoint: more } = config.serverMetadata()
  if (!wish.withUserinfo || more === undefined) return claims
  return { ...claims, ...(await fetchUserInfo(config, tokens.access_token, claims.sub)) }
}

/** The library makes the address out of parsed parts; a provider compares what it was told at first, letter by letter. */
function withRedirect(ask: CustomFetch, redirectUrl: string): CustomFetch {
  return (url, options) => {
    const { body } = options
    if (body instanceof URLSearchParams && body.has('redirect_uri')) body.set('redirect_uri', redirectUrl)
    return ask(url, options)
  }
}

function asking(trusted: readonly string[]): CustomFetch {
  return async (text, options) => {
    const url = new URL(text)
    if (!isSafeAddress(url)) throw new Fault('unavailable', `'${url.origin}' is not asked without TLS`)
    const { status, headers, body } = await asked(url, options, trusted)
    return new Response(status === 204 ? null : new Uint8Array(body), { status, headers })
  }
}

interface Asked {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body: Buffer
}

function asked(url: URL, { method, headers, body, signal }: CustomFetchOptions, trusted: readonly string[]) {
  const isTls = url.protocol === 'https:'
  const agent = isTls && new Agent({ secureContext: trusting(trusted) })
  const wish = { method, headers: { ...headers, 'accept-encoding': 'identity' }, agent, signal }
  return new Promise<Asked>((resolve, reject) => {
    const request = (isTls ? requestHttps : requestHttp)(url, wish, (answer: IncomingMessage) => {
      const parts: Buffer[] = []
      let bytes = 0
      answer.on('data', (part: Buffer) => {
        bytes += part.length
        if (bytes > providerLimits.answerBytes) request.destroy(new Error('its answer is too long'))
        parts.push(part)
      })
      answer.on('error', fail)
      answer.on('end', () => {
        const told = Object.entries(answer.headers).map(([name, value]) => [name, String(value)])
        const status = answer.statusCode ?? 0
        resolve({ status, headers: Object.fromEntries(told) as Record<string, string>, body: Buffer.concat(parts) })
      })
    })
    const fail = (cause: Error) => {
      const why = signal?.aborted ? `no answer within ${providerLimits.answerSeconds} s` : messageOf(cause)
      reject(new Fault('unavailable', `the OpenID provider at '${url.origin}' cannot be reached: ${why}`, { cause }))
    }
    request.on('error', fail)
    request.end(body instanceof URLSearchParams ? body.toString() : undefined)
  })
}

function causeOf(error: unknown): unknown {
  return error instanceof Error ? error.cause : undefined
}

/** What went wrong, in one line of plain text: half of it may be the provider's own words. */
function reasonOf(error: unknown): string {
  if (isFault(error) || isFault(causeOf(error))) return messageOf(isFault(error) ? error : causeOf(error))
  const { error: code, error_description: more } = error as { error?: unknown; error_description?: unknown }
  if (typeof code === 'string')
    return [code, more]
      .filter((one) => typeof one === 'string')
      .map(printable)
      .join(': ')
  const cause = causeOf(error)
  if (Array.isArray(cause)) return 'it does not accept client-id and client-key of the realm'
  return [messageOf(error), ...(cause instanceof Error ? [messageOf(cause)] : [])].map(printable).join(': ')
}

function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 200)
}
