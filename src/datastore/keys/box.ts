/** AES-256-GCM over whole texts. A key and a nonce are used together once and never again: each caller says how it sees to that. */
import { createCipheriv, createDecipheriv } from 'node:crypto'

export const tagBytes = 16
export const nonceBytes = 12
const cipher = 'aes-256-gcm'

/** Ciphertext and tag. */
export function sealBox(key: Uint8Array, nonce: Uint8Array, about: Uint8Array, text: Uint8Array): Buffer {
  const sealing = createCipheriv(cipher, key, nonce)
  sealing.setAAD(about)
  const sealed = Buffer.allocUnsafe(text.length + tagBytes)
  sealing.update(text).copy(sealed)
  sealing.final()
  sealing.getAuthTag().copy(sealed, text.length)
  return sealed
}

/** The text, or nothing when the key is another or a byte has changed. */
export function openBox(key: Uint8Array, nonce: Uint8Array, about: Uint8Array, sealed: Uint8Array): Buffer | undefined {
  if (sealed.length < tagBytes) return undefined
  const opening = createDecipheriv(cipher, key, nonce)
  opening.setAAD(about)
  opening.setAuthTag(sealed.subarray(sealed.length - tagBytes))
  const text = opening.update(sealed.subarray(0, sealed.length - tagBytes))
  try {
    opening.final()
  } catch {
    return undefined
  }
  return text
}
