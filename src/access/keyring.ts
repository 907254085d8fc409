/**
 * The node's login keys: one Ed25519 key for tickets and one secret for CSRF tokens, made anew every 24
 * hours. What the previous pair signed stays valid, so nobody is logged out by a rotation.
 *
 * Kept in one file, mode 0600, replaced atomically. Only the daemon rotates; should two processes do so at
 * the same time, the later file wins and tickets of the other pair end early, which costs a login.
 * The keys are made from `Random`, not by OpenSSL's own generator, so that a seeded test is a test.
 */
import { createHmac, createPrivateKey, createPublicKey, sign, timingSafeEqual, verify } from 'node:crypto'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { makeDirectory, readIfPresent, writeFileAtomic } from '#host/files.ts'
import { accessLimits } from './limits.ts'

/** Signs and proves texts with the keys of one moment. */
export interface Keys {
  readonly sign: (text: string) => string
  readonly isSigned: (text: string, signature: string) => boolean
  readonly authenticate: (text: string) => string
  readonly isAuthentic: (text: string, code: string) => boolean
}

interface StoredPair {
  /** Milliseconds since 1970. */
  readonly madeAt: number
  /** 32 bytes each, base64. */
  readonly ticketSeed: string
  readonly csrfSecret: string
}

export class Keyring {
  readonly #directory: string
  readonly #clock: Clock
  readonly #random: Random
  #pairs: readonly StoredPair[] = []
  #keys: Keys | undefined
  #loading: Promise<Keys> | undefined

  constructor({ directory, clock, random }: { directory: string; clock: Clock; random: Random }) {
    this.#directory = directory
    this.#clock = clock
    this.#random = random
  }

  get #path(): string {
    return join(this.#directory, 'login-keys.json')
  }

  /** The keys of now: read, made or rotated when it is time. */
  async current(): Promise<Keys> {
    if (this.#keys && !this.#isOld()) return this.#keys
    this.#loading ??= this.#renew().finally(() => (this.#loading = undefined))
    return await this.#loading
  }

  /** The keys in memory, if any were asked for yet; never waits and never rotates. */
  get held(): Keys | undefined {
    return this.#keys
  }

  #isOld(): boolean {
    const newest = this.#pairs[0]
    return newest === undefined || this.#clock.now() - newest.madeAt >= accessLimits.ticket.keyLifetimeMs
  }

  async #renew(): Promise<Keys> {
    if (this.#pairs.length === 0) this.#pairs = readPairs(await readIfPresent(this.#path), this.#path)
    if (this.#isOld()) {
      const pairs = [this.#newPair(), ...this.#pairs].slice(0, 2)
      await makeDirectory(this.#directory, 0o700)
      await writeFileAtomic(this.#path, JSON.stringify({ version: 1, pairs }), 0o600)
      this.#pairs = pairs
    }
    this.#keys = keysOf(this.#pairs)
    return this.#keys
  }

  #newPair(): StoredPair {
    const secret = () => Buffer.from(this.#random.bytes(32)).toString('base64')
    return { madeAt: this.#clock.now(), ticketSeed: secret(), csrfSecret: secret() }
  }
}

function readPairs(text: string | undefined, path: string): StoredPair[] {
  if (text === undefined) return []
  const remedy = 'Delete the file: new keys are made, and everybody logs in again.'
  try {
    const { version, pairs } = JSON.parse(text) as { version: unknown; pairs: StoredPair[] }
    if (version === 1 && pairs.every(isPair)) return pairs
  } catch (cause) {
    throw new Fault('damaged', `the login keys in '${path}' cannot be read`, { cause: nameOf(cause), remedy })
  }
  throw new Fault('damaged', `the login keys in '${path}' are not in a form this version knows`, { remedy })
}

/** A JSON error quotes the text it failed on, which here are keys. */
function nameOf(cause: unknown): string {
  return cause instanceof Error ? cause.name : 'unknown'
}

function isPair({ madeAt, ticketSeed, csrfSecret }: StoredPair): boolean {
  return Number.isFinite(madeAt) && [ticketSeed, csrfSecret].every((text) => Buffer.from(text, 'base64').length === 32)
}

/** PKCS #8 wrapping of a raw Ed25519 seed (RFC 8410). */
const ed25519Prefix = Buffer.from('302e020100300506032b657004220420', 'hex')

function keysOf(pairs: readonly StoredPair[]): Keys {
  const made = pairs.map(({ ticketSeed, csrfSecret }) => {
    const der = Buffer.concat([ed25519Prefix, Buffer.from(ticketSeed, 'base64')])
    const privateKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    return { privateKey, publicKey: createPublicKey(privateKey), csrfSecret: Buffer.from(csrfSecret, 'base64') }
  })
  const [newest] = made
  if (!newest) throw new Error('a keyring without keys')
  const known = new Set<string>()
  const hmac = (secret: Buffer, text: string) => createHmac('sha256', secret).update(text).digest()
  return {
    sign: (text) => sign(null, Buffer.from(text), newest.privateKey).toString('base64'),
    isSigned(text, signature) {
      const whole = `${text} ${signature}`
      if (known.has(whole)) return true
      const bytes = strictBase64(signature)
      const isGood = made.some(({ publicKey }) => verify(null, Buffer.from(text), publicKey, bytes))
      if (isGood) remember(known, whole)
      return isGood
    },
    authenticate: (text) => hmac(newest.csrfSecret, text).toString('base64'),
    isAuthentic: (text, code) => {
      const bytes = strictBase64(code)
      return made.some(({ csrfSecret }) => bytes.length === 32 && timingSafeEqual(hmac(csrfSecret, text), bytes))
    },
  }
}

/**
 * A signature once found good under these keys stays so: what is remembered saves three quarters of a small
 * request's time. Only good ones, so nobody fills this with guesses; whether a ticket is still fresh and its
 * user still may is asked each time.
 */
function remember(known: Set<string>, whole: string): void {
  if (known.size >= accessLimits.rememberedSignatures) known.clear()
  known.add(whole)
}

/** One text per value: loose decoding would make several texts of one signature. Nothing becomes no bytes. */
function strictBase64(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : Buffer.alloc(0)
}
