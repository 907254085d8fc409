/**
 * The node's own passwords. An unknown user, and one without a password, costs as much as a known one: the
 * password is then checked against a hash nobody has the password of.
 */
import { type Argon2Cost, standardCost } from '#base/argon2id.ts'
import { invalid } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { hasCost, hashPassword, passwordMatches } from '../password.ts'
import { passwordChange } from '../user.ts'
import type { AccessState } from '../world.ts'
import type { Realm } from './realm.ts'

export const passwordLength = { minimum: 8, maximum: 64 } as const

export class PveRealm implements Realm {
  readonly name = 'pve'
  readonly answersForStrangers = true
  readonly #state: AccessState
  readonly #random: Random
  readonly #cost: Argon2Cost
  #dummy: Promise<string> | undefined

  constructor({ state, random, cost = standardCost }: { state: AccessState; random: Random; cost?: Argon2Cost }) {
    this.#state = state
    this.#random = random
    this.#cost = cost
  }

  async verify(name: string, password: string): Promise<boolean> {
    const userid = `${name}@${this.name}`
    const stored = await this.#state.passwordHash(userid)
    const isRight = await passwordMatches(stored ?? (await this.#dummyHash()), password)
    if (!isRight || stored === undefined) return false
    if (!hasCost(stored, this.#cost)) await this.#renewHash(userid, stored, password)
    return true
  }

  /** @throws Fault `invalid` naming `password` when it is too short or too long. */
  async hash(password: string): Promise<string> {
    const { minimum, maximum } = passwordLength
    if (password.length < minimum) {
      throw invalid({ password: `value must be at least ${minimum} characters long` })
    }
    if (password.length > maximum) throw invalid({ password: `value may only be ${maximum} characters long` })
    return await hashPassword(this.#random, password, this.#cost)
  }

  #dummyHash(): Promise<string> {
    this.#dummy ??= hashPassword(this.#random, this.#random.uuid(), this.#cost)
    return this.#dummy
  }

  /** Unless the password was changed meanwhile: the old one must not come back. */
  async #renewHash(userid: string, stored: string, password: string): Promise<void> {
    const renewed = await hashPassword(this.#random, password, this.#cost)
    if ((await this.#state.passwordHash(userid)) !== stored) return
    await this.#state.change((world) => (world.users.has(userid) ? passwordChange(world, userid, renewed) : []))
  }
}
