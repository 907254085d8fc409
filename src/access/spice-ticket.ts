/**
 * Tickets for SPICE: `<8 hex digits of seconds since 1970>.<vmid>.<signature in two parts>.spice`, good for 40 seconds.
 * In the place of the vmid, 0 stands for the node.
 *
 * A viewer gives its ticket where a proxy expects the name of a host. So it looks like one: small letters, because
 * names know no others, and parts of at most 63 characters. Who it is for, and the number of the console, are signed
 * along but not in the text.
 */
import { readBase32, writeBase32 } from '#base/base32.ts'
import type { ConsoleClaim } from './console-ticket.ts'
import type { Keys } from './keyring.ts'
import { accessLimits } from './limits.ts'
import { hexTime, isFresh } from './ticket.ts'

const shape = /^([0-9a-f]{8})\.(0|[1-9][0-9]{0,9})\.([a-z2-7]{52})\.([a-z2-7]{51})\.spice$/

/** In the place of a guest's number. */
export const nodeInSpiceTicket = 0

export interface SpiceClaim extends ConsoleClaim {
  readonly port: number
}

/** @param subject for whoever is handed the ticket alone; the claim's path is what counts */
export function writeSpiceTicket(keys: Keys, claim: SpiceClaim, subject: number, nowSeconds: number): string {
  const time = hexTime(nowSeconds).toLowerCase()
  const signature = writeBase32(Buffer.from(keys.sign(signedText(claim, time)), 'base64')).toLowerCase()
  return `${time}.${subject}.${signature.slice(0, 52)}.${signature.slice(52)}.spice`
}

/** What a ticket names, whether or not it holds: a guest, or the node. */
export function subjectOfSpiceTicket(text: string): number | undefined {
  const subject = shape.exec(text)?.[2]
  return subject === undefined ? undefined : Number(subject)
}

export function isSpiceTicket(keys: Keys, text: string, claim: SpiceClaim, nowSeconds: number): boolean {
  const [, time = '', , first = '', second = ''] = shape.exec(text) ?? []
  if (time === '' || !isFresh(time, nowSeconds, accessLimits.consoleTicket.lifetimeSeconds)) return false
  const signature = readBase32(first + second)?.toString('base64')
  return signature !== undefined && keys.isSigned(signedText(claim, time), signature)
}

/** Nothing else that is signed reads like it. */
function signedText({ authId, path, port }: SpiceClaim, time: string): string {
  return JSON.stringify(['SPICE', time, authId, path, port])
}
