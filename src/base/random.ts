/** The only source of randomness, so that a test can hand in a seeded one. */
import { randomBytes, randomUUID } from 'node:crypto'

export interface Random {
  readonly bytes: (count: number) => Uint8Array
  readonly uuid: () => string
}

export const systemRandom: Random = { bytes: (count) => randomBytes(count), uuid: () => randomUUID() }

/** Letters and digits that nobody confuses when reading aloud: no 0 O 1 l I. */
const readable = 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789'

/** A password of `length` characters from 55 letters and digits (5.8 bits each). */
export function password(random: Random, length = 20): string {
  let text = ''
  while (text.length < length) {
    for (const byte of random.bytes(length)) {
      // Bytes past the last whole multiple would favour the first letters.
      if (byte < 256 - (256 % readable.length) && text.length < length) text += readable.charAt(byte % readable.length)
    }
  }
  return text
}

/** A unicast, locally administered MAC address such as `BC:24:11:0A:1B:2C`. */
export function macAddress(random: Random): string {
  const tail = [...random.bytes(3)].map((byte) => byte.toString(16).padStart(2, '0').toUpperCase())
  return ['BC', '24', '11', ...tail].join(':')
}
