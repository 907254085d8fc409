/** Who may open a console, proven by a ticket of seconds, and who may go on looking at one. */
import { type Clock, seconds } from '#base/clock.ts'
import { type ConsoleClaim, isConsoleTicket, writeConsoleTicket } from './console-ticket.ts'
import { authenticationFailure, type Identity, isRoot } from './identity.ts'
import type { Keyring } from './keyring.ts'
import type { Privileges } from './permissions.ts'
import type { Proof } from './proof.ts'
import { isSpiceTicket, type SpiceClaim, writeSpiceTicket } from './spice-ticket.ts'

export interface ConsoleAccessNeeds {
  readonly keyring: Keyring
  readonly proof: Proof
  readonly clock: Clock
  readonly judge: (who: Identity, path: string) => Promise<Privileges>
}

export class ConsoleAccess {
  readonly #needs: ConsoleAccessNeeds

  constructor(needs: ConsoleAccessNeeds) {
    this.#needs = needs
  }

  /** @param password of the screen; it stands in front of the ticket */
  async write(claim: ConsoleClaim, password?: string): Promise<string> {
    const { keyring, clock } = this.#needs
    return writeConsoleTicket(await keyring.current(), claim, seconds(clock), password)
  }

  /** Whether the ticket was written for exactly this claim and has not ended. */
  async holds(text: string, claim: ConsoleClaim): Promise<boolean> {
    const { keyring, clock } = this.#needs
    return isConsoleTicket(await keyring.current(), text, claim, seconds(clock))
  }

  /** @param vmid of the guest the claim's path means */
  async writeSpice(claim: SpiceClaim, subject: number): Promise<string> {
    const { keyring, clock } = this.#needs
    return writeSpiceTicket(await keyring.current(), claim, subject, seconds(clock))
  }

  async holdsSpice(text: string, claim: SpiceClaim): Promise<boolean> {
    const { keyring, clock } = this.#needs
    return isSpiceTicket(await keyring.current(), text, claim, seconds(clock))
  }

  /** Whether the user or token is still good, and holds all of these privileges there. */
  async mayStill(authId: string, path: string, privileges: readonly string[]): Promise<boolean> {
    const who = await this.#needs.proof.stillGood(authId)
    if (!who || isRoot(who)) return who !== undefined
    const held = await this.#needs.judge(who, path)
    return privileges.length > 0 && privileges.every((privilege) => held.has(privilege))
  }

  /**
   * Passes when the ticket holds and its owner has the privileges.
   * @throws Fault `unauthenticated`: one answer, whatever is wrong
   */
  async verify(text: string, claim: ConsoleClaim, privileges: readonly string[]): Promise<void> {
    const isGood = (await this.holds(text, claim)) && (await this.mayStill(claim.authId, claim.path, privileges))
    if (!isGood) throw authenticationFailure()
  }
}
