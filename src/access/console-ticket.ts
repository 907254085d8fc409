/**
 * Tickets for consoles: `PVEVNC:<8 hex digits of seconds since 1970>::<base64 signature>`, good for 40 seconds.
 *
 * What the signature covers is not in the text: who may open the console, whose console it is, and the port
 * it waits on. So a ticket opens one console, for one user, once it is known which. A screen's ticket has the
 * screen's password in front, because older clients give the ticket itself as password, of which VNC reads
 * eight characters.
 */
import type { Keys } from './keyring.ts'
import { accessLimits } from './limits.ts'
import { hexTime, isFresh } from './ticket.ts'

export interface ConsoleClaim {
  /** User, or token when one acts. */
  readonly authId: string
  /** `/vms/100`, `/nodes/lab`. */
  readonly path: string
  readonly port?: number | undefined
}

const shape = /^(?:([A-Za-z0-9]{8}):)?PVEVNC:([0-9A-F]{8})::([A-Za-z0-9+/]+={0,2})$/

export function writeConsoleTicket(keys: Keys, claim: ConsoleClaim, nowSeconds: number, password = ''): string {
  const time = hexTime(nowSeconds)
  const ticket = `PVEVNC:${time}::${keys.sign(signedText(claim, time, password))}`
  return password === '' ? ticket : `${password}:${ticket}`
}

export function isConsoleTicket(keys: Keys, text: string, claim: ConsoleClaim, nowSeconds: number): boolean {
  if (text.length > accessLimits.consoleTicket.textLength) return false
  const [, password = '', time = '', signature = ''] = shape.exec(text) ?? []
  if (time === '' || !isFresh(time, nowSeconds, accessLimits.consoleTicket.lifetimeSeconds)) return false
  return keys.isSigned(signedText(claim, time, password), signature)
}

/** No two claims read alike, and none like what is signed for a login. */
function signedText({ authId, path, port }: ConsoleClaim, time: string, password: string): string {
  return JSON.stringify(['PVEVNC', time, authId, path, port ?? null, password])
}
