/**
 * The second step of a log-in: what is asked of a user whose password was right, and whether an answer holds.
 *
 * Every answer is judged and counted in one act on the user's document, so neither a repetition nor a hundred at one
 * time get further than the first.
 */
import { type Clock, seconds } from '#base/clock.ts'
import type { Random } from '#base/random.ts'
import type { AccessState } from '../world.ts'
import { tfaOf } from '../realm-config.ts'
import { splitUserId } from '../user.ts'
import { newChallenge, withChallenge, withoutChallenge } from './challenges.ts'
import { itemsOf } from './entries.ts'
import type { Held, HeldFactors } from './held.ts'
import { afterFailure, type FactorType, unlocked, whyLocked } from './lock.ts'
import { codesLeft, withoutCode } from './recovery.ts'
import { totpStep } from './totp.ts'
import { loginOptions, provenCounter, readAnswer, type RelyingParty } from './webauthn.ts'

/** What the second step asks for, in the words clients know. */
export interface TfaChallenge {
  readonly totp?: true
  /** Positions of the codes left. */
  readonly recovery?: readonly number[]
  readonly webauthn?: { readonly publicKey: object }
}

export type SecondStep =
  | { readonly kind: 'none' }
  | { readonly kind: 'asked'; readonly challenge: TfaChallenge }
  | { readonly kind: 'refused'; readonly why: string }

export interface FactorNeeds {
  readonly state: AccessState
  readonly held: HeldFactors
  readonly clock: Clock
  readonly random: Random
  /** As configured now. */
  readonly relyingParty: () => Promise<RelyingParty | undefined>
}

export class SecondFactor {
  readonly #needs: FactorNeeds

  constructor(needs: FactorNeeds) {
    this.#needs = needs
  }

  /** What a user whose password was right has to prove beside it. */
  async asks(userid: string): Promise<SecondStep> {
    const held = await this.#needs.held.of(userid)
    const { realms } = await this.#needs.state.read()
    const demanded = tfaOf(realms.get(splitUserId(userid)?.realm ?? ''))
    if (demanded && !held.totp.some(({ enable }) => enable)) {
      return { kind: 'refused', why: 'the realm demands a one-time password, and the user has none' }
    }
    // Recovery codes that are used up still ask: the password alone must not become enough by using them.
    if (!itemsOf(held).some(({ enable }) => enable)) return { kind: 'none' }
    return { kind: 'asked', challenge: await this.#challengeOf(userid, held) }
  }

  /**
   * @param answer `totp:123456`, `recovery:abcd-…` or `webauthn:{…}`
   * @returns why it does not hold, for the log, or nothing
   */
  async refuses(userid: string, answer: string): Promise<string | undefined> {
    const [, type, value = ''] = /^(totp|recovery|webauthn):(.*)$/s.exec(answer) ?? []
    switch (type) {
      case 'totp':
        return this.#judge(userid, 'totp', (held) => withStep(held, value.trim(), this.#now()))
      case 'recovery':
        return this.#judge(userid, 'recovery', (held) => withoutRecovery(held, value))
      case 'webauthn':
        return this.#judgeKey(userid, value)
      default:
        return 'a second factor of no known type'
    }
  }

  async #challengeOf(userid: string, held: Held): Promise<TfaChallenge> {
    const { totp, recovery, isTotpLocked } = held
    const webauthn = await this.#keyChallenge(userid, held)
    return {
      ...(totp.some(({ enable }) => enable) && !isTotpLocked ? { totp: true } : {}),
      ...(recovery?.enable ? { recovery: codesLeft(recovery) } : {}),
      ...(webauthn ? { webauthn } : {}),
    }
  }

  async #keyChallenge(userid: string, held: Held): Promise<TfaChallenge['webauthn']> {
    const { random, relyingParty } = this.#needs
    const present = held.webauthn.filter(({ enable }) => enable)
    const party = present.length > 0 ? await relyingParty() : undefined
    if (!party) return undefined
    const challenge = newChallenge(random)
    await this.#needs.held.change(userid, (now) => withChallenge(now, challenge, 'login', this.#now()))
    return loginOptions(party, { challenge, present })
  }

  /** @param accept the document after this answer, or nothing when it does not hold */
  async #judge(
    userid: string,
    type: FactorType,
    accept: (held: Held) => Held | undefined,
  ): Promise<string | undefined> {
    let why: string | undefined
    await this.#needs.held.change(userid, (held) => {
      why = whyLocked(held, type, this.#now())
      if (why !== undefined) return held
      const accepted = accept(held)
      if (accepted) return unlocked(accepted)
      why = `wrong ${type}`
      return afterFailure(held, type, this.#now())
    })
    return why
  }

  async #judgeKey(userid: string, text: string): Promise<string | undefined> {
    const answer = readAnswer<'login'>(text)
    const party = await this.#needs.relyingParty()
    const entry = (await this.#needs.held.of(userid)).webauthn.find(
      ({ credential, enable }) => enable && credential === answer?.response.id,
    )
    // Spent before it is judged: an answer is looked at once.
    const isOurs = answer !== undefined && (await this.#spend(userid, answer.challenge))
    const counter = isOurs && party && entry ? await provenCounter(party, answer, entry) : undefined
    return this.#judge(userid, 'webauthn', (held) =>
      counter === undefined || !entry ? undefined : withCounter(held, entry.credential, counter),
    )
  }

  async #spend(userid: string, challenge: string): Promise<boolean> {
    let isOpen = false
    await this.#needs.held.change(userid, (held) => {
      const spent = withoutChallenge(held, challenge, 'login', this.#now())
      isOpen = spent !== undefined
      return spent ?? held
    })
    return isOpen
  }

  #now(): number {
    return seconds(this.#needs.clock)
  }
}

/** With the code's step spent on the first entry it fits. */
function withStep(held: Held, code: string, nowSeconds: number): Held | undefined {
  for (const entry of held.totp) {
    const step = entry.enable ? totpStep(entry, code, nowSeconds, entry.lastStep) : undefined
    if (step === undefined) continue
    return { ...held, totp: held.totp.map((one) => (one === entry ? { ...one, lastStep: step } : one)) }
  }
  return undefined
}

function withoutRecovery(held: Held, code: string): Held | undefined {
  const { recovery } = held
  const left = recovery?.enable ? withoutCode(recovery, code) : undefined
  return recovery && left && { ...held, recovery: { ...recovery, hashes: [...left.hashes] } }
}

/** Only while the key is still there and in use. */
function withCounter(held: Held, credential: string, counter: number): Held | undefined {
  const isUsable = held.webauthn.some((one) => one.enable && one.credential === credential)
  if (!isUsable) return undefined
  return { ...held, webauthn: held.webauthn.map((one) => (one.credential === credential ? { ...one, counter } : one)) }
}
