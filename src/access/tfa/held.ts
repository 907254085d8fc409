/**
 * What a user has beside the password, and how often it failed lately: one document each, `access/tfa/<user>`,
 * apart from the user, so that whoever reads users never touches a secret.
 *
 * Every change is decided on the document as it is and on a user who is still there, and starts over when either
 * changed meanwhile: a code is spent once, failures of a hundred attempts at one time are a hundred.
 */
import { Fault, isFault } from '#base/fault.ts'
import { array, boolean, enumOf, integer, object, optional, type Static, string } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'
import { accessLimits } from '../limits.ts'
import { requireUser } from '../user.ts'
import { type AccessState, keyOf } from '../world.ts'
import { totpAlgorithms } from './totp.ts'

const told = {
  id: string(),
  description: string(),
  /** Seconds since 1970. */
  created: integer(),
  enable: boolean(),
}
const totpEntry = object({
  ...told,
  secret: string(),
  algorithm: enumOf(totpAlgorithms),
  digits: integer(),
  periodSeconds: integer(),
  /** The last time step a code was accepted of; it and all before it are spent. */
  lastStep: integer(),
})
const webauthnEntry = object({
  ...told,
  /** Base64url, as browsers write it. */
  credential: string(),
  /** COSE key, base64. */
  publicKey: string(),
  counter: integer(),
})
const challenge = object({
  text: string(),
  purpose: enumOf(['login', 'registration']),
  /** Seconds since 1970. */
  until: integer(),
})
const shape = object({
  totp: array(totpEntry),
  webauthn: array(webauthnEntry),
  recovery: optional(object({ ...told, salt: string(), hashes: array(string()) })),
  /** In a row, of any factor. */
  failures: integer(),
  totpFailures: integer(),
  isTotpLocked: boolean(),
  /** Seconds since 1970; 0 when nothing was refused for a while. */
  lockedUntil: integer(),
  challenges: array(challenge),
})

export type Held = Static<typeof shape>
export type WebauthnEntry = Static<typeof webauthnEntry>
export type Challenge = Static<typeof challenge>

const nothing: Held = {
  totp: [],
  webauthn: [],
  failures: 0,
  totpFailures: 0,
  isTotpLocked: false,
  lockedUntil: 0,
  challenges: [],
}

export class HeldFactors {
  readonly #state: AccessState
  readonly #store: Store
  readonly #documents: Documents<Held>

  constructor({ state, store }: { state: AccessState; store: Store }) {
    this.#state = state
    this.#store = store
    this.#documents = new Documents(store, { noun: 'second factor', prefix: keyOf.tfa(''), schema: shape })
  }

  async of(userid: string): Promise<Held> {
    return (await this.#documents.find(userid))?.value ?? nothing
  }

  /** By user; only those who have any. */
  async all(): Promise<ReadonlyMap<string, Held>> {
    return new Map((await this.#documents.list()).map(({ name, value }) => [name, value]))
  }

  /**
   * Makes true what `decide` answers for the present; it may be asked several times. The same value means no change.
   * @throws Fault `missing` when there is no such user
   */
  async change(userid: string, decide: (held: Held) => Held): Promise<void> {
    for (let attempt = 1; attempt <= accessLimits.tfa.changeAttempts; attempt += 1) {
      const world = await this.#state.read()
      requireUser(world, userid)
      const found = await this.#documents.find(userid)
      const held = found?.value ?? nothing
      const changed = decide(held)
      if (changed === held) return
      const guards = [
        { key: keyOf.version, revision: world.revision },
        this.#documents.guard({ name: userid, revision: found?.revision ?? 0 }),
      ]
      try {
        await this.#store.transact(guards, [this.#documents.write(userid, changed)])
        return
      } catch (error) {
        if (!isFault(error, 'conflict')) throw error
      }
    }
    throw new Fault('unavailable', `the second factors of '${userid}' are being changed too fast`)
  }
}
