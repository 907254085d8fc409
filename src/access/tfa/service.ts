/** Managing second factors: whose there are, new ones, changes of one, and lifting a lock. Secrets go in and never come out. */
import { type Clock, seconds } from '#base/clock.ts'
import { invalid } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { type Confirmation, requireConfirmation } from '../confirmation.ts'
import type { Identity } from '../identity.ts'
import type { Login } from '../login.ts'
import { tfaOf } from '../realm-config.ts'
import { requireUser, splitUserId } from '../user.ts'
import type { AccessState } from '../world.ts'
import { newChallenge, withChallenge, withoutChallenge } from './challenges.ts'
import {
  changed,
  type FactorChange,
  type FactorItem,
  itemsOf,
  recoveryId,
  requireChange,
  requireItem,
  requireRoom,
  usableTypes,
  without,
} from './entries.ts'
import type { Held, HeldFactors } from './held.ts'
import { isLocked, unlocked } from './lock.ts'
import { makeRecoveryCodes } from './recovery.ts'
import { readOtpauth, totpStep } from './totp.ts'
import { provenKey, readAnswer, registrationOptions, type RelyingParty, requireRelyingParty } from './webauthn.ts'

export interface TfaNeeds {
  readonly state: AccessState
  readonly held: HeldFactors
  readonly login: Login
  readonly clock: Clock
  readonly random: Random
  readonly relyingParty: () => Promise<RelyingParty | undefined>
}

/** Who changes whose factors, and the password that confirms it. */
export interface Act {
  readonly who: Identity
  readonly userid: string
  readonly password?: string | undefined
  readonly address: string
}

export interface NewFactor {
  readonly type: string
  readonly description?: string | undefined
  /** `otpauth://…` */
  readonly totp?: string | undefined
  /** The present code, or a browser's answer. */
  readonly value?: string | undefined
  /** The challenge that answer belongs to; without one a new challenge is made. */
  readonly challenge?: string | undefined
}

export interface AddedFactor {
  readonly id?: string
  readonly challenge?: string
  readonly recovery?: string[]
}

export interface UserFactors extends Locks {
  readonly userid: string
  readonly entries: FactorItem[]
}

interface Locks {
  readonly 'totp-locked'?: boolean
  readonly 'tfa-locked-until'?: number
}

export class TfaService {
  readonly #needs: TfaNeeds

  constructor(needs: TfaNeeds) {
    this.#needs = needs
  }

  /** Of every user who has any, or is locked, and may be seen. */
  async list(maySee: (userid: string) => Promise<boolean>): Promise<UserFactors[]> {
    const found: UserFactors[] = []
    for (const [userid, held] of await this.#needs.held.all()) {
      if (itemsOf(held).length === 0 && !isLocked(held, this.#now())) continue
      if (await maySee(userid)) found.push({ userid, entries: itemsOf(held), ...this.#locksIn(held) })
    }
    return found
  }

  async items(userid: string): Promise<FactorItem[]> {
    return itemsOf(await this.#of(userid))
  }

  async item(userid: string, id: string): Promise<FactorItem> {
    return requireItem(await this.#of(userid), id)
  }

  /** What kinds of factors the user has, and what the realm demands. */
  async types(userid: string): Promise<{ types: FactorItem['type'][]; realm?: 'oath' }> {
    const types = usableTypes(await this.#of(userid))
    const realm = tfaOf((await this.#needs.state.read()).realms.get(splitUserId(userid)?.realm ?? ''))
    return realm ? { types, realm } : { types }
  }

  async locks(): Promise<ReadonlyMap<string, Locks>> {
    return new Map([...(await this.#needs.held.all())].map(([userid, held]) => [userid, this.#locksIn(held)]))
  }

  async add(act: Act, factor: NewFactor): Promise<AddedFactor> {
    await this.#confirm(act)
    const { userid } = act
    switch (factor.type) {
      case 'totp':
        return this.#addTotp(userid, factor)
      case 'recovery':
        return this.#addRecovery(userid, factor)
      case 'webauthn':
        return factor.challenge === undefined ? this.#askForKey(userid) : this.#addKey(userid, factor)
      default:
        throw invalid({ type: whyNot[factor.type] ?? 'that is no second factor this node knows' })
    }
  }

  async change(act: Act, id: string, change: FactorChange): Promise<void> {
    requireChange(change)
    await this.item(act.userid, id)
    await this.#confirm(act)
    await this.#needs.held.change(act.userid, (held) => changed(held, id, change))
  }

  async delete(act: Act, id: string): Promise<void> {
    await this.item(act.userid, id)
    await this.#confirm(act)
    await this.#needs.held.change(act.userid, (held) => without(held, id))
  }

  /** Whether there was a lock to lift. */
  async unlock(userid: string): Promise<boolean> {
    let wasLocked = false
    await this.#needs.held.change(userid, (held) => {
      wasLocked = isLocked(held, this.#now())
      return wasLocked || held.failures > 0 ? unlocked(held) : held
    })
    return wasLocked
  }

  async #addTotp(userid: string, { totp = '', value, description = '' }: NewFactor): Promise<AddedFactor> {
    const read = readOtpauth(totp)
    if (!read.ok) throw invalid({ totp: read.complaint })
    if (value === undefined) throw invalid({ value: 'the present code is needed, to see that the app has the secret' })
    const lastStep = totpStep(read.value, value.trim(), this.#now(), -1)
    if (lastStep === undefined) {
      throw invalid(
        { value: 'the code does not belong to this secret and the present time' },
        { remedy: 'Look whether the clocks of this node and of the app are right.' },
      )
    }
    const entry = { ...this.#newEntry(this.#needs.random.uuid(), description), ...read.value, lastStep }
    await this.#needs.held.change(userid, (held) => {
      requireRoom(held, 'totp')
      return { ...held, totp: [...held.totp, entry] }
    })
    return { id: entry.id }
  }

  async #addRecovery(userid: string, { description = '' }: NewFactor): Promise<AddedFactor> {
    const { codes, keys } = makeRecoveryCodes(this.#needs.random)
    const recovery = { ...this.#newEntry(recoveryId, description), ...keys, hashes: [...keys.hashes] }
    await this.#needs.held.change(userid, (held) => {
      requireRoom(held, 'recovery')
      return { ...held, recovery }
    })
    return { id: recoveryId, recovery: codes }
  }

  async #askForKey(userid: string): Promise<AddedFactor> {
    const party = requireRelyingParty(await this.#needs.relyingParty())
    const challenge = newChallenge(this.#needs.random)
    await this.#needs.held.change(userid, (held) => {
      requireRoom(held, 'webauthn')
      return withChallenge(held, challenge, 'registration', this.#now())
    })
    const present = (await this.#needs.held.of(userid)).webauthn
    return { challenge: await registrationOptions(party, { userid, challenge, present }) }
  }

  async #addKey(userid: string, { challenge = '', value = '', description = '' }: NewFactor): Promise<AddedFactor> {
    const party = requireRelyingParty(await this.#needs.relyingParty())
    const answer = readAnswer<'registration'>(value)
    if (!answer) throw invalid({ value: 'that is not what a browser answers to a challenge of WebAuthn' })
    if (answer.challenge !== challenge || !(await this.#spend(userid, challenge))) {
      throw invalid({ challenge: 'that challenge is not open' }, { remedy: 'Begin anew: ask without a challenge.' })
    }
    const key = await provenKey(party, answer)
    if (!key) {
      throw invalid(
        { value: 'the key did not prove itself for this site' },
        { remedy: "Compare the address of the page with the cluster option 'webauthn'." },
      )
    }
    const entry = { ...this.#newEntry(this.#needs.random.uuid(), description), ...key }
    await this.#needs.held.change(userid, (held) => {
      requireRoom(held, 'webauthn')
      if (held.webauthn.some(({ credential }) => credential === key.credential)) {
        throw invalid({ value: 'this key is registered already' })
      }
      return { ...held, webauthn: [...held.webauthn, entry] }
    })
    return { id: entry.id }
  }

  async #spend(userid: string, challenge: string): Promise<boolean> {
    let isOpen = false
    await this.#needs.held.change(userid, (held) => {
      const spent = withoutChallenge(held, challenge, 'registration', this.#now())
      isOpen = spent !== undefined
      return spent ?? held
    })
    return isOpen
  }

  #newEntry(id: string, description: string): Omit<FactorItem, 'type'> {
    return { id, description, created: this.#now(), enable: true }
  }

  async #confirm({ who, userid, password, address }: Act): Promise<void> {
    requireUser(await this.#needs.state.read(), userid)
    const given: Confirmation = { field: 'password', password, address }
    await requireConfirmation(this.#needs.login, who, given)
  }

  async #of(userid: string): Promise<Held> {
    requireUser(await this.#needs.state.read(), userid)
    return this.#needs.held.of(userid)
  }

  #locksIn(held: Held): Locks {
    return {
      ...(held.isTotpLocked ? { 'totp-locked': true } : {}),
      ...(held.lockedUntil > this.#now() ? { 'tfa-locked-until': held.lockedUntil } : {}),
    }
  }

  #now(): number {
    return seconds(this.#needs.clock)
  }
}

const whyNot: Readonly<Record<string, string>> = {
  u2f: 'no browser speaks u2f any more; webauthn takes the same keys',
  yubico: 'yubico asks a service outside of this node and is not served; webauthn takes the same keys',
}
