/** A user's second factors as a list: what may be told of each, and changes of one by its id. */
import { Fault, invalid, missing } from '#base/fault.ts'
import { accessLimits } from '../limits.ts'
import type { Held } from './held.ts'
import { codesLeft } from './recovery.ts'
import type { FactorType } from './lock.ts'

export interface FactorItem {
  readonly id: string
  readonly type: FactorType
  readonly description: string
  readonly created: number
  readonly enable: boolean
}

export interface FactorChange {
  readonly description?: string | undefined
  readonly enable?: boolean | undefined
}

/** The one set of recovery codes a user may have. */
export const recoveryId = 'recovery'

export function itemsOf({ totp, webauthn, recovery }: Held): FactorItem[] {
  return [
    ...totp.map((entry) => itemOf('totp', entry)),
    ...webauthn.map((entry) => itemOf('webauthn', entry)),
    ...(recovery ? [itemOf('recovery', recovery)] : []),
  ]
}

/** Types somebody could log in with now; used-up recovery codes are none. */
export function usableTypes({ totp, webauthn, recovery }: Held): FactorType[] {
  return [
    ...(totp.some(({ enable }) => enable) ? ['totp' as const] : []),
    ...(webauthn.some(({ enable }) => enable) ? ['webauthn' as const] : []),
    ...(recovery?.enable && codesLeft(recovery).length > 0 ? ['recovery' as const] : []),
  ]
}

/** @throws Fault `missing`: `TFA entry 'x' does not exist` */
export function requireItem(held: Held, id: string): FactorItem {
  const item = itemsOf(held).find((one) => one.id === id)
  if (!item) throw missing('TFA entry', id)
  return item
}

export function changed(held: Held, id: string, { description, enable }: FactorChange): Held {
  requireItem(held, id)
  const apply = <E extends FactorItem | Omit<FactorItem, 'type'>>(entry: E): E =>
    entry.id === id
      ? { ...entry, description: description ?? entry.description, enable: enable ?? entry.enable }
      : entry
  const { totp, webauthn, recovery } = held
  return {
    ...held,
    totp: totp.map(apply),
    webauthn: webauthn.map(apply),
    ...(recovery ? { recovery: apply(recovery) } : {}),
  }
}

export function without(held: Held, id: string): Held {
  requireItem(held, id)
  const { totp, webauthn, recovery, ...others } = held
  return {
    ...others,
    totp: totp.filter((entry) => entry.id !== id),
    webauthn: webauthn.filter((entry) => entry.id !== id),
    ...(recovery && id !== recoveryId ? { recovery } : {}),
  }
}

/** @throws Fault `exhausted` for one too many, `conflict` for a second set of recovery codes */
export function requireRoom(held: Held, type: FactorType): void {
  if (type === 'recovery' && held.recovery) {
    throw new Fault('conflict', 'the user has recovery codes already', { remedy: 'Delete them first.' })
  }
  const { entriesPerUser } = accessLimits.tfa
  if (itemsOf(held).length >= entriesPerUser) {
    throw new Fault('exhausted', `a user has at most ${entriesPerUser} second factors`, {
      remedy: 'Delete one that is not used any more.',
    })
  }
}

/** @throws Fault `invalid` */
export function requireChange({ description, enable }: FactorChange): void {
  if (description === undefined && enable === undefined) {
    const text = "nothing to change: give 'description' or 'enable'"
    throw invalid({ description: text, enable: text })
  }
}

function itemOf(type: FactorType, { id, description, created, enable }: Omit<FactorItem, 'type'>): FactorItem {
  return { id, type, description, created, enable }
}
