/**
 * One-time passwords by time (RFC 6238 over RFC 4226), and the `otpauth://` text that hands their secret to an app.
 *
 * Which time step a code belongs to is the answer, not merely whether it fits: whoever keeps that step refuses
 * it from then on, so a code that was read over somebody's shoulder is worth nothing.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { accessLimits } from '../limits.ts'
import { readBase32 } from '#base/base32.ts'

export const totpAlgorithms = ['SHA1', 'SHA256', 'SHA512'] as const

export interface TotpSettings {
  /** Base32. */
  readonly secret: string
  readonly algorithm: (typeof totpAlgorithms)[number]
  readonly digits: number
  readonly periodSeconds: number
}

export type Read<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly complaint: string }

const { secretBytes, digits: digitBounds, periodSeconds: periodBounds, windowSteps } = accessLimits.tfa.totp

/** The code of one time step. */
export function totpCode({ secret, algorithm, digits }: TotpSettings, step: number): string {
  const counter = Buffer.alloc(8)
  counter.writeBigUInt64BE(BigInt(step))
  const hash = createHmac(algorithm.toLowerCase(), readBase32(secret) ?? '')
    .update(counter)
    .digest()
  const offset = (hash.at(-1) ?? 0) & 15
  const number = hash.readUInt32BE(offset) & 0x7fff_ffff
  return String(number % 10 ** digits).padStart(digits, '0')
}

/**
 * The step a code belongs to: the present one, or one beside it, but none up to `lastStep`.
 * Every candidate is compared in the same time, whatever the code.
 */
export function totpStep(
  settings: TotpSettings,
  code: string,
  nowSeconds: number,
  lastStep: number,
): number | undefined {
  const present = Math.floor(nowSeconds / settings.periodSeconds)
  let found: number | undefined
  for (let step = Math.max(0, present - windowSteps); step <= present + windowSteps; step += 1) {
    if (isSame(totpCode(settings, step), code) && step > lastStep) found ??= step
  }
  return found
}

function isSame(expected: string, given: string): boolean {
  const [a, b] = [Buffer.from(expected), Buffer.from(given)]
  return a.length === b.length && timingSafeEqual(a, b)
}

/** Reads `otpauth://totp/Issuer:account?secret=…&algorithm=…&digits=…&period=…`. Complaints never repeat the text: it is a secret. */
export function readOtpauth(text: string): Read<TotpSettings> {
  const query = /^otpauth:\/\/totp\/[^?#]*\?([^#]*)$/i.exec(text)?.[1]
  if (query === undefined) return wrong('value does not look like otpauth://totp/<name>?secret=<base32>')
  const given = new URLSearchParams(query)
  const secret = (given.get('secret') ?? '').toUpperCase().replace(/[\s-]|=+$/g, '')
  const bytes = readBase32(secret)?.length ?? 0
  if (bytes < secretBytes.minimum || bytes > secretBytes.maximum) {
    return wrong(`the secret must be ${secretBytes.minimum} to ${secretBytes.maximum} bytes in Base32`)
  }
  const name = (given.get('algorithm') ?? 'SHA1').toUpperCase().replace('-', '')
  const algorithm = totpAlgorithms.find((known) => known === name)
  if (!algorithm) return wrong(`the algorithm must be one of ${totpAlgorithms.join(', ')}`)
  const digits = wholeNumber(given.get('digits') ?? '6', digitBounds)
  if (digits === undefined) return wrong(`digits must be ${digitBounds.minimum} to ${digitBounds.maximum}`)
  const periodSeconds = wholeNumber(given.get('period') ?? '30', periodBounds)
  if (periodSeconds === undefined) {
    return wrong(`the period must be ${periodBounds.minimum} to ${periodBounds.maximum} seconds`)
  }
  return { ok: true, value: { secret, algorithm, digits, periodSeconds } }
}

function wholeNumber(text: string, { minimum, maximum }: { minimum: number; maximum: number }): number | undefined {
  const value = /^\d{1,4}$/.test(text) ? Number(text) : Number.NaN
  return value >= minimum && value <= maximum ? value : undefined
}

function wrong(complaint: string): { readonly ok: false; readonly complaint: string } {
  return { ok: false, complaint }
}
