/** What proves who somebody is, once logged in: tickets with their CSRF tokens, and API tokens. */
import { type Clock, seconds } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { csrfTokenHolds, writeCsrfToken } from './csrf.ts'
import { type Identity, invalidTicket, invalidToken, tokenIdentityOf, userIdentity } from './identity.ts'
import type { Keyring } from './keyring.ts'
import { readTicket, writeTicket } from './ticket.ts'
import { secretMatches, splitTokenId } from './token.ts'
import { whyUnusable } from './user.ts'
import type { AccessState, World } from './world.ts'

export class Proof {
  readonly #state: AccessState
  readonly #keyring: Keyring
  readonly #clock: Clock

  constructor({ state, keyring, clock }: { state: AccessState; keyring: Keyring; clock: Clock }) {
    this.#state = state
    this.#keyring = keyring
    this.#clock = clock
  }

  async ofTicket(text: string): Promise<Identity> {
    const userid = readTicket(await this.#keyring.current(), text, this.#now())
    if (userid === undefined) throw invalidTicket()
    if (whyUnusable(await this.#state.read(), userid, this.#now()) !== undefined) throw invalidTicket()
    return userIdentity(userid)
  }

  async ofToken(text: string): Promise<Identity> {
    const [, fullId = '', secret = ''] = /^(?:PVEAPIToken[= ])?([^\s:/]{1,127})=([0-9a-f-]{36})$/.exec(text) ?? []
    const world = await this.#state.read()
    const token = world.tokens.get(fullId)
    const parts = splitTokenId(fullId)
    if (!secretMatches(token, secret) || !token || !parts) throw invalidToken()
    const reason = this.#whyNoToken(world, token, parts)
    if (reason !== undefined) throw new Fault('unauthenticated', reason)
    return tokenIdentityOf(parts.userid, parts.tokenid)
  }

  /** Whoever was proven before and may still be: for what goes on after its request. */
  async stillGood(authId: string): Promise<Identity | undefined> {
    const world = await this.#state.read()
    const parts = splitTokenId(authId)
    if (!parts) return whyUnusable(world, authId, this.#now()) === undefined ? userIdentity(authId) : undefined
    const token = world.tokens.get(authId)
    const isGood = token && this.#whyNoToken(world, token, parts) === undefined
    return isGood ? tokenIdentityOf(parts.userid, parts.tokenid) : undefined
  }

  #whyNoToken(world: World, token: { expire: number }, { userid, tokenid }: { userid: string; tokenid: string }) {
    const isExpired = token.expire !== 0 && token.expire <= this.#now()
    return isExpired ? `token '${tokenid}' access expired` : whyUnusable(world, userid, this.#now())
  }

  csrfIsValid(who: Identity, header: string | undefined): boolean {
    const keys = this.#keyring.held
    return keys !== undefined && header !== undefined && csrfTokenHolds(keys, who.user, header, this.#now())
  }

  async csrfTokenFor(userid: string): Promise<string> {
    return writeCsrfToken(await this.#keyring.current(), userid, this.#now())
  }

  /** A new session: the ticket, and the token every changing call needs beside it. */
  async write(userid: string): Promise<{ ticket: string; CSRFPreventionToken: string }> {
    const keys = await this.#keyring.current()
    const now = this.#now()
    return { ticket: writeTicket(keys, userid, now), CSRFPreventionToken: writeCsrfToken(keys, userid, now) }
  }

  #now(): number {
    return seconds(this.#clock)
  }
}
