/**
 * Recovery codes: ten texts of 80 random bits, each good once, for whoever lost everything else.
 *
 * What is kept is an HMAC of each under a salt of the set. A fast hash is enough for 80 random bits, as it is
 * for a token's secret.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Random } from '#base/random.ts'
import { accessLimits } from '../limits.ts'
import { writeBase32 } from '#base/base32.ts'

export interface RecoveryKeys {
  /** Base64. */
  readonly salt: string
  /** Base64 each; empty once the code was used. */
  readonly hashes: readonly string[]
}

/** `abcd-efgh-ijkl-mnop`, to be shown once, and what is kept of them. */
export function makeRecoveryCodes(random: Random): { codes: string[]; keys: RecoveryKeys } {
  const codes = Array.from({ length: accessLimits.tfa.recoveryCodes }, () => newCode(random))
  const salt = Buffer.from(random.bytes(16)).toString('base64')
  return { codes, keys: { salt, hashes: codes.map((code) => hashOf(salt, code)) } }
}

/** The keys without this code, or nothing when it is none of those left. */
export function withoutCode(keys: RecoveryKeys, code: string): RecoveryKeys | undefined {
  const given = Buffer.from(hashOf(keys.salt, code), 'base64')
  const isGiven = keys.hashes.map((hash) => hash !== '' && timingSafeEqual(Buffer.from(hash, 'base64'), given))
  if (!isGiven.includes(true)) return undefined
  return { ...keys, hashes: keys.hashes.map((hash, at) => (isGiven[at] === true ? '' : hash)) }
}

/** Positions of the codes that are left. */
export function codesLeft({ hashes }: RecoveryKeys): number[] {
  return hashes.flatMap((hash, at) => (hash === '' ? [] : [at]))
}

function newCode(random: Random): string {
  return writeBase32(random.bytes(10)).toLowerCase().match(/.{4}/g)?.join('-') ?? ''
}

/** People leave out dashes and type capitals. */
function hashOf(salt: string, code: string): string {
  const letters = code.toLowerCase().replace(/[\s-]/g, '')
  return createHmac('sha256', Buffer.from(salt, 'base64')).update(letters).digest('base64')
}
