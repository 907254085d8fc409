/**
 * CSRF tokens: `<8 hex time>:<base64 HMAC-SHA256 of "<time>:<user>">`. A browser sends the ticket's cookie
 * along with a forged form, but cannot add this header. Lives as long as a ticket.
 */
import type { Keys } from './keyring.ts'
import { hexTime, isFresh } from './ticket.ts'

export function writeCsrfToken(keys: Keys, userid: string, nowSeconds: number): string {
  const time = hexTime(nowSeconds)
  return `${time}:${keys.authenticate(`${time}:${userid}`)}`
}

export function csrfTokenHolds(keys: Keys, userid: string, text: string, nowSeconds: number): boolean {
  const [, time = '', code = ''] = /^([0-9A-F]{8}):([A-Za-z0-9+/]{43}=)$/.exec(text) ?? []
  return time !== '' && isFresh(time, nowSeconds) && keys.isAuthentic(`${time}:${userid}`, code)
}
