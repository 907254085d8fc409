/**
 * Whose lease it is: the id of a lease says what its secret is, and nobody can find the secret from it. So whoever put a
 * lease can renew it and give it back, whatever else their token may do, and nobody else can; a server that was started
 * anew in between need not remember anything.
 */
import { createHash } from 'node:crypto'

/** A header of requests about a lease: its secret. */
export const leaseHeader = 'x-lease'
const secretShape = /^[0-9a-f]{64}$/

/** The id, in the form of a UUID, that belongs to a secret of 64 hexadecimal digits. */
export function leaseIdOf(secret: string): string {
  const hash = createHash('sha256').update(`hakobune lease ${secret}`).digest('hex')
  return [
    hash.slice(0, 8),
    hash.slice(8, 12),
    `4${hash.slice(12, 15)}`,
    `8${hash.slice(15, 18)}`,
    hash.slice(18, 30),
  ].join('-')
}

/** @param secret as it came in a request */
export function isOwnLease(name: string, secret: string | string[] | undefined): boolean {
  return typeof secret === 'string' && secretShape.test(secret) && name === `leases/${leaseIdOf(secret)}`
}
