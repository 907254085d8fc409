/** A new secret for an authenticator app, in the spelling apps read. */
import { writeBase32 } from '#base/base32.ts'
import { productName } from '#base/product.ts'
import type { Random } from '#base/random.ts'

/** 160 bits, as long as the hash: what RFC 4226 recommends, and what every app knows. */
export function newAppSecret(random: Random, account: string): string {
  const name = `${encodeURIComponent(productName)}:${encodeURIComponent(account)}`
  return `otpauth://totp/${name}?secret=${writeBase32(random.bytes(20))}&issuer=${encodeURIComponent(productName)}`
}
