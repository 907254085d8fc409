/**
 * What repeated failures of second factors lead to.
 *
 * Whoever gets here knows the password, so there is somebody to be slowed down, and six digits are few. After
 * five failures in a row nothing is accepted for a quarter of an hour. After twenty wrong one-time passwords in a
 * row those are refused until another factor was accepted or an administrator lifts it: without that, patience alone
 * would get in some day.
 */
import { accessLimits } from '../limits.ts'
import type { Held } from './held.ts'

const { failures: failuresToLock, lockSeconds, totpFailures: totpFailuresToLock } = accessLimits.tfa

export type FactorType = 'totp' | 'recovery' | 'webauthn'

/** Why nothing, or nothing of this type, is accepted now. */
export function whyLocked(held: Held, type: FactorType, nowSeconds: number): string | undefined {
  if (held.lockedUntil > nowSeconds) return 'second factors are locked after repeated failures'
  if (type === 'totp' && held.isTotpLocked) return 'one-time passwords are locked after repeated failures'
  return undefined
}

export function afterFailure(held: Held, type: FactorType, nowSeconds: number): Held {
  const failures = held.failures + 1
  const totpFailures = held.totpFailures + (type === 'totp' ? 1 : 0)
  const isLocking = failures >= failuresToLock
  return {
    ...held,
    failures: isLocking ? 0 : failures,
    totpFailures,
    isTotpLocked: held.isTotpLocked || totpFailures >= totpFailuresToLock,
    lockedUntil: isLocking ? nowSeconds + lockSeconds : held.lockedUntil,
  }
}

/** After a success, or when an administrator says so. */
export function unlocked(held: Held): Held {
  return { ...held, failures: 0, totpFailures: 0, isTotpLocked: false, lockedUntil: 0 }
}

export function isLocked(held: Held, nowSeconds: number): boolean {
  return held.isTotpLocked || held.lockedUntil > nowSeconds
}
