/** X25519 with keys as the 32 bytes they are. */
import { createPrivateKey, createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject } from 'node:crypto'

/** What comes before the 32 bytes of a key in its DER form (RFC 8410). */
const privatePrefix = Buffer.from('302e020100300506032b656e04220420', 'hex')
const publicPrefix = Buffer.from('302a300506032b656e032100', 'hex')

export interface FreshPair {
  readonly publicKey: Buffer
  readonly privateKey: KeyObject
}

/** For one use. */
export function freshPair(): FreshPair {
  const { publicKey, privateKey } = generateKeyPairSync('x25519')
  return { publicKey: raw(publicKey), privateKey }
}

export function privateOf(key: Buffer): KeyObject {
  return createPrivateKey({ key: Buffer.concat([privatePrefix, key]), format: 'der', type: 'pkcs8' })
}

export function publicOf(privateKey: KeyObject): Buffer {
  return raw(createPublicKey(privateKey))
}

/** @param publicKey 32 bytes, of the other side */
export function shared(privateKey: KeyObject, publicKey: Buffer): Buffer {
  const key = createPublicKey({ key: Buffer.concat([publicPrefix, publicKey]), format: 'der', type: 'spki' })
  return diffieHellman({ privateKey, publicKey: key })
}

function raw(key: KeyObject): Buffer {
  return Buffer.from(key.export({ format: 'der', type: 'spki' }).subarray(-32))
}
