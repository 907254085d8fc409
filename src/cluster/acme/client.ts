/**
 * Talks to an ACME server, by the library of that protocol (RFC 8555). Loaded by tasks alone: the daemon never needs it.
 */
import { Agent } from 'node:https'
import type { Client, CryptoInterface } from 'acme-client'
import { Fault, messageOf } from '#base/fault.ts'
import { trusted, trusting } from '#host/web/trusted.ts'
import { directoryMeta } from './directory.ts'

export interface AcmeAt {
  readonly directory: string
  /** PEM of the account's key. */
  readonly key: string
  /** Address of the account; absent before there is one. */
  readonly location?: string | undefined
  readonly binding?: { readonly kid: string; readonly hmacKey: string } | undefined
  readonly caFile?: string | undefined
}

/** How a name is proven. */
export interface Proof {
  readonly kind: 'http-01' | 'dns-01'
  readonly create: (name: string, token: string, answer: string) => Promise<void>
  readonly remove: (name: string, token: string, answer: string) => Promise<void>
}

export interface Ordering {
  readonly names: readonly string[]
  readonly proofOf: (name: string) => Proof
  readonly log: (line: string) => void
}

const replyMs = 30_000

/** @throws Fault `unavailable` when the server does not answer */
export async function openAcme(at: AcmeAt) {
  // The library has no words of its own for a server that is not there.
  await directoryMeta(at.directory, { caFile: at.caFile, signal: AbortSignal.timeout(replyMs) })
  const { default: acme } = await import('acme-client')
  const { defaults } = acme.axios
  defaults.httpsAgent = new Agent({ secureContext: trusting(await trusted(at.caFile)) })
  defaults.timeout = replyMs
  defaults.maxContentLength = 1_048_576
  // A server that does not answer is told to the user, who can try again, and not asked for half a minute.
  Object.assign(defaults, {
    acmeSettings: { ...Reflect.get(defaults, 'acmeSettings'), retryMaxAttempts: 2, retryDefaultDelay: 1 },
  })
  const client = new acme.Client({
    directoryUrl: at.directory,
    accountKey: at.key,
    backoffMin: 500,
    backoffMax: 15_000,
    backoffAttempts: 12,
    ...(at.location === undefined ? {} : { accountUrl: at.location }),
    ...(at.binding ? { externalAccountBinding: at.binding } : {}),
  })
  return {
    /** @returns where the account is from now on */
    register: (contact: readonly string[], isAgreed: boolean) =>
      said(at, async () => {
        const wish = {
          termsOfServiceAgreed: isAgreed,
          ...(contact.length === 0 ? {} : { contact: addresses(contact) }),
        }
        await client.createAccount(wish)
        return client.getAccountUrl()
      }),
    /** An account with that key becomes one nobody can use; harmless when there is none. */
    endIfThere: () =>
      said(at, async () => {
        await client.createAccount({ onlyReturnExisting: true })
        await client.updateAccount({ status: 'deactivated' })
      }),
    account: () => said(at, () => client.updateAccount({})),
    setContact: (contact: readonly string[]) => said(at, () => client.updateAccount({ contact: addresses(contact) })),
    deactivate: () => said(at, () => client.updateAccount({ status: 'deactivated' })),
    revoke: (certificate: string) => said(at, () => client.revokeCertificate(certificate)),
    order: (ordering: Ordering) => said(at, () => order(acme.crypto, client, ordering)),
  }
}

/** @returns a new key and the certificate with those that vouch for it */
async function order(
  crypto: CryptoInterface,
  client: Client,
  { names, proofOf, log }: Ordering,
): Promise<{ key: string; certificates: string }> {
  const [key, csr] = await crypto.createCsr({ altNames: [...names] }, await crypto.createPrivateEcdsaKey('P-256'))
  const wish = await client.createOrder({ identifiers: names.map((value) => ({ type: 'dns', value })) })
  for (const authorization of await client.getAuthorizations(wish)) {
    const { identifier, status, wildcard = false } = authorization
    const name = identifier.value
    if (status === 'valid') {
      log(`${name} is proven already`)
      continue
    }
    const proof = proofOf(wildcard ? `*.${name}` : name)
    const { kind } = proof
    const challenge = authorization.challenges.find(({ type }) => type === kind)
    if (!challenge) throw new Fault('failed', `the ACME server does not take ${kind} for '${name}'`)
    const answer = await client.getChallengeKeyAuthorization(challenge)
    log(`proving ${name} by ${kind}`)
    await proof.create(name, challenge.token, answer)
    try {
      await client.completeChallenge(challenge)
      await client.waitForValidStatus(challenge)
    } finally {
      await proof.remove(name, challenge.token, answer)
    }
  }
  const finalized = await client.finalizeOrder(wish, csr)
  return { key: key.toString(), certificates: await client.getCertificate(finalized) }
}

const addresses = (contact: readonly string[]) => contact.map((address) => `mailto:${address}`)

/** The server's own words reach the user. */
async function said<T>({ directory }: AcmeAt, act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    throw new Fault('failed', `the ACME server '${directory}' says: ${messageOf(cause)}`, { cause })
  }
}
