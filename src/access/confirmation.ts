/** Before a grave act everybody but root confirms with his own password, so that a stolen ticket does not become an account. */
import { invalid } from '#base/fault.ts'
import { type Identity, isRoot } from './identity.ts'
import type { Login } from './login.ts'

export interface Confirmation {
  /** Name of the parameter. */
  readonly field: string
  readonly password: string | undefined
  readonly address: string
}

/** @throws Fault `invalid` naming the field */
export async function requireConfirmation(login: Login, who: Identity, given: Confirmation): Promise<void> {
  if (isRoot(who)) return
  const { field, password, address } = given
  if (password === undefined) throw invalid({ [field]: 'your own password is required for this change' })
  const isRight = await login.isPasswordOf(who.user, password, address)
  if (!isRight) throw invalid({ [field]: 'authentication failure' })
}
