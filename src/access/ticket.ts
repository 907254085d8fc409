/**
 * Tickets: `PVE:<user>:<8 hex digits of seconds since 1970>::<base64 signature of what stands before ::>`.
 *
 * A ticket is good for two hours and proves one thing: that its user logged in then. Whether the user still
 * may is asked anew each time. Five minutes in the future are forgiven, for clocks that were set back.
 */
import { accessLimits } from './limits.ts'
import type { Keys } from './keyring.ts'

const halfShape = /^(PVE:!tfa!([A-Za-z0-9!'()*._~%-]+):([0-9A-F]{8}))::([A-Za-z0-9+/]+={0,2})$/
const shape = /^(PVE:([^\s:/]{1,64}):([0-9A-F]{8}))::([A-Za-z0-9+/]+={0,2})$/
const prefix = 'PVE:'

/** Whether a password is meant as a ticket (a renewal). */
export function looksLikeTicket(text: string): boolean {
  return text.startsWith(prefix)
}

export function writeTicket(keys: Keys, userid: string, nowSeconds: number): string {
  const plain = `${prefix}${userid}:${hexTime(nowSeconds)}`
  return `${plain}::${keys.sign(plain)}`
}

/** The user a valid ticket was written for; nothing for any other text. */
export function readTicket(keys: Keys, text: string, nowSeconds: number): string | undefined {
  if (text.length > accessLimits.ticket.textLength) return undefined
  const [, plain = '', userid = '', time = '', signature = ''] = shape.exec(text) ?? []
  if (userid === '' || !isFresh(time, nowSeconds)) return undefined
  return keys.isSigned(plain, signature) ? userid : undefined
}

export function hexTime(nowSeconds: number): string {
  return nowSeconds.toString(16).toUpperCase().padStart(8, '0')
}

/** Whether something stamped with this time still holds. */
export function isFresh(
  time: string,
  nowSeconds: number,
  lifetimeSeconds: number = accessLimits.ticket.lifetimeSeconds,
): boolean {
  const ageSeconds = nowSeconds - Number.parseInt(time, 16)
  return ageSeconds >= -accessLimits.ticket.graceSeconds && ageSeconds < lifetimeSeconds
}

/**
 * Half a ticket: the password was right, the second factor is still asked for. What is asked stands in it, for user
 * interfaces that look; the user does not, but is signed along, so it is good for nobody else, and as a ticket for
 * nobody at all.
 */
export function writeHalfTicket(keys: Keys, userid: string, challenge: object, nowSeconds: number): string {
  const plain = `${prefix}!tfa!${encodeURIComponent(JSON.stringify(challenge))}:${hexTime(nowSeconds)}`
  return `${plain}::${keys.sign(`${plain}:${userid}`)}`
}

/** Whether the text is half a ticket of this user's and not too old. */
export function halfTicketHolds(keys: Keys, userid: string, text: string, nowSeconds: number): boolean {
  const { ticketLength, challengeSeconds } = accessLimits.tfa
  if (text.length > ticketLength) return false
  const [, plain = '', , time = '', signature = ''] = halfShape.exec(text) ?? []
  const isInTime = time !== '' && isFresh(time, nowSeconds) && nowSeconds - Number.parseInt(time, 16) < challengeSeconds
  return isInTime && keys.isSigned(`${plain}:${userid}`, signature)
}
