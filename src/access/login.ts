/**
 * The login: from user name and password to "this is the user", to "there is a second factor to prove", or to a
 * refusal that tells nothing.
 *
 * Whatever is wrong (the name, the password, the realm, a disabled user, too many attempts), the answer is
 * the same 401 `authentication failure`, three seconds after the request began. Why is in the log, without
 * the password. A valid ticket in the password's place renews itself; `root@pam`'s ticket opens any account.
 * Neither asks for the second factor again.
 */
import { type Clock, seconds } from '#base/clock.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { authenticationFailure } from './identity.ts'
import type { Keyring } from './keyring.ts'
import { accessLimits } from './limits.ts'
import type { Realm } from './realms/realm.ts'
import { LoginThrottle } from './throttle.ts'
import type { SecondFactor } from './tfa/second-factor.ts'
import { halfTicketHolds, looksLikeTicket, readTicket, writeHalfTicket } from './ticket.ts'
import { Turnstile } from './turnstile.ts'
import { isUserId, splitUserId, whyUnusable } from './user.ts'
import { type AccessState, root } from './world.ts'

export interface Credentials {
  /** `user@realm`, or `user` together with `realm`. */
  readonly username: string
  readonly realm?: string | undefined
  /** Password, or a ticket that still holds; with `tfaChallenge` the answer to it. */
  readonly password: string
  /** One-time password, for clients that know one step only. */
  readonly otp?: string | undefined
  /** Half the ticket, from the first step. */
  readonly tfaChallenge?: string | undefined
  /** Where the request came from; empty on the local socket. */
  readonly address: string
  /** Ends the wait of a refusal early. */
  readonly signal?: AbortSignal | undefined
}

export interface LoginWorld {
  readonly state: AccessState
  readonly keyring: Keyring
  readonly clock: Clock
  readonly log: Log
  readonly realms: readonly Realm[]
  readonly secondFactor: Pick<SecondFactor, 'asks' | 'refuses'>
}

/** Who logged in, or who is half in: with a ticket that only holds together with the second factor. */
export interface Proven {
  readonly userid: string
  readonly halfTicket?: string
}

/** Why a login is refused; for the log alone. */
class Refusal extends Error {}

export class Login {
  readonly #world: LoginWorld
  readonly #throttle: LoginThrottle
  readonly #turnstile: Turnstile

  constructor(world: LoginWorld) {
    const { checksAtOnce, checksWaiting } = accessLimits.login
    this.#world = world
    this.#throttle = new LoginThrottle(world.clock)
    this.#turnstile = new Turnstile({ atOnce: checksAtOnce, waiting: checksWaiting })
  }

  /**
   * The user these credentials prove, as far as they do.
   * @param isAllowed a last condition on the proven user, refused like any other
   * @throws Fault `unauthenticated`, after 3 s; `unavailable` or `exhausted` when passwords cannot be checked now
   */
  async prove(given: Credentials, isAllowed?: (userid: string) => Promise<boolean>): Promise<Proven> {
    const startedAt = this.#world.clock.monotonic()
    const userid = userIdFrom(given)
    try {
      const halfTicket = await this.#check(userid, given)
      if (isAllowed && halfTicket !== undefined) throw new Refusal('the second factor is missing')
      if (isAllowed && !(await isAllowed(userid))) throw new Refusal('the privileges asked for are not held')
      return halfTicket === undefined ? { userid } : { userid, halfTicket }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      // A malformed name may be a password typed into the wrong field.
      const user = isUserId(userid) ? userid : '(malformed)'
      this.#world.log.warn('login refused', { user, address: given.address, reason: messageOf(error) })
      await this.#waitUntil(startedAt + accessLimits.login.refusalMs, given.signal)
      throw authenticationFailure()
    }
  }

  /** Whether the password is the user's; counts towards the throttle. For asking again before a grave act. */
  async isPasswordOf(userid: string, password: string, address: string): Promise<boolean> {
    if (!this.#throttle.admit(userid, address)) return false
    const [realm, name] = [this.#realmOf(userid), splitUserId(userid)?.name]
    if (!realm || name === undefined) return false
    const isRight = await this.#turnstile.pass(() => realm.verify(name, password))
    if (isRight) this.#throttle.succeeded(userid, address)
    return isRight
  }

  #realmOf(userid: string): Realm | undefined {
    const name = splitUserId(userid)?.realm
    return this.#world.realms.find((realm) => realm.name === name)
  }

  /** Half a ticket when there is more to prove. */
  async #check(userid: string, given: Credentials): Promise<string | undefined> {
    if (!isUserId(userid)) throw new Refusal('that is no user name')
    const { password, address, tfaChallenge } = given
    const unusable = whyUnusable(await this.#world.state.read(), userid, seconds(this.#world.clock))
    if (tfaChallenge !== undefined) return this.#checkSecond(userid, { ...given, tfaChallenge }, unusable)
    if (unusable === undefined && (await this.#isTicketFor(userid, password))) return undefined
    await this.#requireServedRealm(userid)
    if (password.length > accessLimits.login.passwordLength) throw new Refusal('the password is too long')
    if (unusable !== undefined && !this.#realmOf(userid)?.answersForStrangers) throw new Refusal(unusable)
    const isRight = await this.#isRight(userid, password, address)
    if (unusable !== undefined) throw new Refusal(unusable)
    if (!isRight) throw new Refusal('wrong password, or too many attempts')
    return this.#askSecond(userid, given)
  }

  /** Says so at once: which realms there are, everybody may know. */
  async #requireServedRealm(userid: string): Promise<void> {
    const realm = splitUserId(userid)?.realm ?? ''
    const type = (await this.#world.state.read()).realms.get(realm)?.type
    if (type === undefined || type === 'pam' || type === 'pve') return
    throw new Fault('unauthenticated', `this node cannot check passwords of the realm '${realm}' (${type})`, {
      remedy:
        type === 'openid'
          ? 'Log in through its provider, or use an API token of the user.'
          : 'Use an API token of the user, or log in as a user of the realm pve or pam.',
    })
  }

  async #askSecond(userid: string, { otp }: Credentials): Promise<string | undefined> {
    const { secondFactor, keyring, clock } = this.#world
    const step = await secondFactor.asks(userid)
    if (step.kind === 'refused') throw new Refusal(step.why)
    if (step.kind === 'none') return undefined
    if (otp === undefined) return writeHalfTicket(await keyring.current(), userid, step.challenge, seconds(clock))
    await this.#requireAnswer(userid, otp.includes(':') ? otp : `totp:${otp}`)
    return undefined
  }

  async #checkSecond(
    userid: string,
    { tfaChallenge, password }: Credentials & { readonly tfaChallenge: string },
    unusable: string | undefined,
  ): Promise<undefined> {
    const keys = await this.#world.keyring.current()
    if (!halfTicketHolds(keys, userid, tfaChallenge, seconds(this.#world.clock))) {
      throw new Refusal('the first step was not taken, or too long ago')
    }
    if (unusable !== undefined) throw new Refusal(unusable)
    await this.#requireAnswer(userid, password)
  }

  async #requireAnswer(userid: string, answer: string): Promise<void> {
    const why = await this.#world.secondFactor.refuses(userid, answer)
    if (why !== undefined) throw new Refusal(why)
  }

  /** A ticket that does not hold is tried as a password: one may begin like a ticket. */
  async #isTicketFor(userid: string, text: string): Promise<boolean> {
    if (!looksLikeTicket(text)) return false
    const { state, keyring, clock } = this.#world
    const owner = readTicket(await keyring.current(), text, seconds(clock))
    if (owner !== userid && owner !== root) return false
    return whyUnusable(await state.read(), owner, seconds(clock)) === undefined
  }

  async #isRight(userid: string, password: string, address: string): Promise<boolean> {
    try {
      return await this.isPasswordOf(userid, password, address)
    } catch (error) {
      if (isFault(error)) this.#world.log.error('a password could not be checked', { user: userid, error })
      throw error
    }
  }

  async #waitUntil(deadline: number, signal?: AbortSignal): Promise<void> {
    const leftMs = deadline - this.#world.clock.monotonic()
    if (leftMs > 0) await this.#world.clock.sleep(leftMs, signal)
  }
}

/** Appends the realm unless the name ends in it already. */
function userIdFrom({ username, realm }: Credentials): string {
  if (realm === undefined || realm === '' || username.endsWith(`@${realm}`)) return username
  return `${username}@${realm}`
}
