/** X25519 with keys as the 32 bytes they are. */
import { createPrivateKey, createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { Fault } from '#base/fault.ts'

const keyBytes = 32
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

/**
 * @param publicKey of the other side: most often it stands in the clear, and anybody may have written it
 * @throws Fault `damaged` when it is not 32 bytes, or one of the few with which every secret is the same
 */
export function shared(privateKey: KeyObject, publicKey: Buffer): Buffer {
  if (publicKey.length !== keyBytes) throw new Fault('damaged', `a public key in it has ${publicKey.length} bytes`)
  const key = createPublicKey({ key: Buffer.concat([publicPrefix, publicKey]), format: 'der', type: 'spki' })
  try {
    return diffieHellman({ privateKey, publicKey: key })
  } catch (cause) {
    throw new Fault('damaged', 'a public key in it makes no secret', { cause })
  }
}

function raw(key: KeyObject): Buffer {
  return Buffer.from(key.export({ format: 'der', type: 'spki' }).subarray(-keyBytes))
}
