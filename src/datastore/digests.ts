/**
 * BLAKE3, by which chunks and packs are called (docs/decisions/blake3.md), and SHA-256 where the name of a file is one.
 */
import { createHash } from 'node:crypto'
import type * as Blake from '@napi-rs/blake-hash'
import { loaderFor, once } from '#base/on-demand.ts'

type Hasher = Blake.Blake3Hasher

/** Loaded by who hashes something: a list does not. */
const blake = once(() => loaderFor(import.meta.url)<typeof Blake>('@napi-rs/blake-hash'))

/** @param key 32 bytes. @returns the MAC of one content after another, 32 bytes each */
export function blake3Mac(key: Buffer): (content: Uint8Array) => Buffer {
  const hasher = once(() => blake().Blake3Hasher.newKeyed(key))
  return (content) => {
    const kept = hasher()
    // Keeps the key.
    kept.reset()
    kept.update(content)
    return kept.digestBuffer()
  }
}

export const packMagic = Buffer.from('HAKOPAK3', 'latin1')

/** Of a file that is called by its digest. Which one that is follows from how the file begins: BLAKE3 of packs, SHA-256 of all else. */
export class NameDigest {
  /** Too few bytes to tell. */
  #start = Buffer.alloc(0)
  #hash: Hasher | ReturnType<typeof createHash> | undefined

  update(bytes: Uint8Array): void {
    if (this.#hash) {
      this.#hash.update(bytes)
      return
    }
    this.#start = Buffer.concat([this.#start, bytes])
    if (this.#start.length >= packMagic.length) this.#begin()
  }

  /** 64 digits. Nothing can be added any more. */
  hex(): string {
    const hash = this.#hash ?? this.#begin()
    return String(hash.digest('hex'))
  }

  #begin(): Hasher | ReturnType<typeof createHash> {
    const isPack = this.#start.subarray(0, packMagic.length).equals(packMagic)
    const hash = isPack ? new (blake().Blake3Hasher)() : createHash('sha256')
    hash.update(this.#start)
    this.#start = Buffer.alloc(0)
    this.#hash = hash
    return hash
  }
}
