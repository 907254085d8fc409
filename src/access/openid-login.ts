/**
 * The login through an OpenID provider: a user is sent there, comes back with a code, and the provider says who it is.
 *
 * The state names one attempt of one realm, is good once, and holds the nonce and the verifier that never leave the
 * node; so a code is worth nothing to whoever did not begin. Unlike a password nothing here can be guessed, so a
 * refusal says what is wrong, and says it at once.
 */
import { type Clock, seconds } from '#base/clock.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { openProvider, type Provider } from '#host/web/openid.ts'
import { trusted } from '#host/web/trusted.ts'
import type { Store } from '#store/store.ts'
import type { Keyring } from './keyring.ts'
import { accessLimits } from './limits.ts'
import type { Proven } from './login.ts'
import { OpenAttempts } from './open-attempts.ts'
import { realmDigest, requireRealmConfig } from './realm-config.ts'
import type { RealmConfig } from './realm-options.ts'
import * as openid from './realms/openid.ts'
import type { SecondFactor } from './tfa/second-factor.ts'
import { writeHalfTicket } from './ticket.ts'
import { Turnstile } from './turnstile.ts'
import { whyUnusable } from './user.ts'
import { type AccessState, keyOf } from './world.ts'

export interface OpenIdWorld {
  readonly state: AccessState
  readonly store: Store
  readonly keyring: Keyring
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly secondFactor: Pick<SecondFactor, 'asks'>
  /** PEM file of authorities to trust beside the machine's own. */
  readonly caFile: string | undefined
}

export interface OpenIdAnswer {
  readonly state: string
  readonly code: string
  readonly redirectUrl: string
  readonly address: string
}

const { providerSeconds, failureSeconds, asksAtOnce, asksWaiting } = accessLimits.openid

export class OpenIdLogin {
  readonly #world: OpenIdWorld
  readonly #attempts: OpenAttempts
  readonly #turnstile = new Turnstile({ atOnce: asksAtOnce, waiting: asksWaiting })
  /** What providers say of themselves, by realm, for a while. */
  readonly #providers = new Map<string, { readonly of: string; readonly found: Promise<Provider>; until: number }>()

  constructor(world: OpenIdWorld) {
    this.#world = world
    this.#attempts = new OpenAttempts(world.clock)
  }

  /** Where the user goes to log in. @throws Fault `missing`, `conflict`, `invalid`, `unavailable` */
  async begin(realm: string, { redirectUrl, address }: { redirectUrl: string; address: string }): Promise<string> {
    openid.requireRedirectUrl(redirectUrl)
    const config = requireRealmConfig((await this.#world.state.read()).realms, realm)
    if (config.type !== 'openid') {
      throw new Fault('conflict', `the realm '${realm}' has no OpenID provider: it is of the type ${config.type}`)
    }
    const attempt = {
      realm,
      address,
      redirectUrl,
      state: this.#secret(),
      nonce: this.#secret(),
      verifier: this.#secret(),
    }
    const provider = await this.#provider(realm, config)
    const url = await provider.authorizationUrl(attempt, openid.authorizationWish(config))
    this.#attempts.begin(attempt)
    return url
  }

  /** Who came back. @throws Fault `unauthenticated` saying why it is nobody, `unavailable` */
  async finish({ state, code, redirectUrl, address }: OpenIdAnswer): Promise<Proven> {
    try {
      return await this.#finish(state, code, redirectUrl)
    } catch (error) {
      this.#world.log.warn('login through a provider refused', { address, reason: messageOf(error) })
      throw error
    }
  }

  async #finish(state: string, code: string, redirectUrl: string): Promise<Proven> {
    const attempt = this.#attempts.take(state)
    if (!attempt) {
      throw openid.refusal('no log-in with this state is under way: it was answered already, or took too long', {
        remedy: 'Begin again.',
      })
    }
    const { realm } = attempt
    if (redirectUrl !== attempt.redirectUrl) throw openid.refusal('the log-in began with another redirect-url')
    const config = (await this.#world.state.read()).realms.get(realm)
    if (config?.type !== 'openid') throw openid.refusal(`there is no OpenID realm '${realm}' any more`)
    const provider = await this.#provider(realm, config)
    const claims = await this.#turnstile.pass(() => provider.redeem(attempt, code, openid.redeemWish(config)))
    const userid = openid.userIdIn(claims, realm, config)
    await this.#arrive(userid, realm, claims)
    return this.#askSecond(userid)
  }

  async #arrive(userid: string, realm: string, claims: Readonly<Record<string, unknown>>): Promise<void> {
    const { state, clock, log } = this.#world
    let notes: readonly string[] = []
    await state.change((world) => {
      const unusable = world.users.has(userid) ? whyUnusable(world, userid, seconds(clock)) : undefined
      if (unusable !== undefined) throw openid.refusal(unusable)
      const arrival = openid.arrivalOf(world, userid, realm, claims)
      notes = arrival.notes
      return arrival.writes
    })
    for (const note of notes) log.info('login through a provider', { user: userid, note })
  }

  /** A factor the user has here is asked for, whatever the provider asked for. */
  async #askSecond(userid: string): Promise<Proven> {
    const { secondFactor, keyring, clock } = this.#world
    const step = await secondFactor.asks(userid)
    if (step.kind === 'none') return { userid }
    if (step.kind === 'refused') throw openid.refusal(step.why)
    return { userid, halfTicket: writeHalfTicket(await keyring.current(), userid, step.challenge, seconds(clock)) }
  }

  async #provider(realm: string, config: RealmConfig): Promise<Provider> {
    const { clock, store, caFile } = this.#world
    const secret = await store.get<string>(keyOf.realmSecret(realm, 'client-key'))
    const of = `${realmDigest(config)} ${secret?.revision ?? 0}`
    const known = this.#providers.get(realm)
    if (known?.of === of && known.until > clock.monotonic()) return known.found
    const found = this.#turnstile.pass(async () =>
      openProvider(openid.providerAddress(config, secret?.value, await trusted(caFile))),
    )
    const entry = { of, found, until: clock.monotonic() + providerSeconds * 1000 }
    this.#providers.set(realm, entry)
    found.catch((error: unknown) => {
      // Who is refused for the crowd shall not be refused for its sake once more.
      const isCrowd = isFault(error, 'exhausted')
      entry.until = clock.monotonic() + (isCrowd ? 0 : failureSeconds * 1000)
    })
    return found
  }

  /** In hexadecimal: a state is also pasted into a command line, where one that began with a dash would be an option. */
  #secret(): string {
    return Buffer.from(this.#world.random.bytes(32)).toString('hex')
  }
}
