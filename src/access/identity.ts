/** Who calls, and the fixed answers to whoever proves nothing. Texts are contract: clients log in again on them. */
import { Fault } from '#base/fault.ts'
import { fullTokenId } from './token.ts'
import { root } from './world.ts'

/** The same shape as `rest/` knows; access stands below it and does not import it. */
export interface Identity {
  /** `root@pam`, also when a token acts. */
  readonly user: string
  /** `root@pam!ci` when a token acts. */
  readonly token?: string
  /** Token if one acts, else user: the name rights are judged for. */
  readonly authId: string
  /** The task that acts, with the rights of whoever started it. */
  readonly task?: string
}

export function userIdentity(userid: string): Identity {
  return { user: userid, authId: userid }
}

export function tokenIdentityOf(userid: string, tokenid: string): Identity {
  const token = fullTokenId(userid, tokenid)
  return { user: userid, token, authId: token }
}

/** `root@pam` in person; its tokens, whatever their rights, are not. */
export function isRoot(who: Identity): boolean {
  return who.authId === root
}

export const invalidTicket = (): Fault => new Fault('unauthenticated', 'permission denied - invalid PVE ticket')
export const invalidToken = (): Fault => new Fault('unauthenticated', 'invalid token value!')
/** The one answer to every bad login. */
export function authenticationFailure(): Fault {
  return new Fault('unauthenticated', 'authentication failure', {
    remedy: 'Check user name, realm and password; after several failed logins the next ones are refused for a while.',
  })
}

export function denied(path: string, ...privileges: readonly string[]): Fault {
  return new Fault('denied', `Permission check failed (${path}, ${privileges.join('|')})`, {
    remedy: `Ask an administrator for a role with ${privileges.join(' or ')} on ${path}.`,
  })
}
