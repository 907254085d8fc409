/**
 * The secrets of a datastore, and what is derived from them.
 *
 * A host that only adds has the chunk key, a signer of its own that the datastore's vouches for, and the public half of a
 * pair whose private half follows from the key packs are sealed with: what it seals with that it cannot open again.
 *
 * The chunk key makes ids, so it lasts as long as the datastore: another one would store everything again. Packs are sealed
 * with the newest of a list of keys, which grows by rotation; none of them ever goes, or old packs could not be read.
 */
import {
  createCipheriv,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  hkdfSync,
  type KeyObject,
  sign,
  verify as verifySignature,
} from 'node:crypto'
import { blake3Mac } from '../digests.ts'
import { ForeignFault } from '../foreign.ts'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { checkProperties } from '#base/schema/check.ts'
import { integer, object, type StaticProperties, string } from '#base/schema/schema.ts'
import { type ChunkKind, idBytes, kinds } from '../format.ts'
import { freshPair, privateOf, publicOf, shared } from './x25519.ts'

const keyBytes = 32
/** The same for all: prints are compared, and nobody without the keys sees one. */
const printNonce = Buffer.alloc(12)
const epochsMaximum = 4_096
const keyText = string({ pattern: /[A-Za-z0-9+/]{43}=/ })
export const writerOuterProperties = {
  id: string({ maxLength: 36 }),
  namespace: string({ maxLength: 300 }),
  public: keyText,
  signature: string({ maxLength: 88 }),
} as const
type PrintedWriter = StaticProperties<typeof writerOuterProperties>
const writerProperties = {
  chunkId: keyText,
  epoch: integer({ minimum: 0, maximum: epochsMaximum }),
  inbox: keyText,
  signer: keyText,
  writer: object(writerOuterProperties),
}

export interface Secrets {
  readonly chunkId: Buffer
  readonly packs: readonly Buffer[]
  /** Private half of the Ed25519 pair manifests are signed with. */
  readonly signer: Buffer
}

/** Of a host that only adds. */
export interface WriterSecrets {
  readonly chunkId: Buffer
  readonly inbox: Inbox
  /** Private half of an Ed25519 pair of its own. */
  readonly signer: Buffer
  readonly writer: Writer
}

/** The X25519 key that things for the readers of a datastore are sealed with. */
export interface Inbox {
  readonly epoch: number
  readonly publicKey: Buffer
}

/** Who signed in the place of the datastore, and what proves that they may. */
export interface Writer {
  /** Of the slot. */
  readonly id: string
  /** In which they may, and below; the root is everywhere. */
  readonly namespace: string
  readonly publicKey: Buffer
  /** By the datastore's signer. */
  readonly signature: Buffer
}

/** What one thing is sealed with. `salt` stands in the clear beside it: random, or the public half of a pair made for it. */
export interface SealKey {
  readonly epoch: number
  readonly isInbox: boolean
  readonly salt: Buffer
  readonly key: Buffer
}

export type Sealed = 'hakobune pack' | 'hakobune manifest'

export function newSecrets(random: Random): Secrets {
  const fresh = () => Buffer.from(random.bytes(keyBytes))
  return { chunkId: fresh(), packs: [fresh()], signer: fresh() }
}

/** What is sealed from now on has a key of its own; everything before stays readable. */
export function rotated(secrets: Secrets, random: Random): Secrets {
  if (secrets.packs.length >= epochsMaximum) {
    throw new Fault('exhausted', `the datastore's keys were changed ${epochsMaximum} times already`)
  }
  return { ...secrets, packs: [...secrets.packs, Buffer.from(random.bytes(keyBytes))] }
}

export function printSecrets({ chunkId, packs, signer }: Secrets): Buffer {
  const text = (bytes: Buffer) => bytes.toString('base64')
  return Buffer.from(JSON.stringify({ chunkId: text(chunkId), packs: packs.map(text), signer: text(signer) }))
}

/** @throws Fault `damaged` */
export function parseSecrets(bytes: Buffer): Secrets {
  const { chunkId, packs, signer } = jsonIn(bytes)
  const key = (value: unknown) => {
    const read = Buffer.from(typeof value === 'string' ? value : '', 'base64')
    if (read.length !== keyBytes) throw new Fault('damaged', 'the keyring of the datastore holds a key of another size')
    return read
  }
  if (!Array.isArray(packs) || packs.length === 0 || packs.length > epochsMaximum) {
    throw new Fault('damaged', 'the keyring of the datastore holds no keys for packs')
  }
  return { chunkId: key(chunkId), packs: packs.map(key), signer: key(signer) }
}

/** Public halves are no secret: anybody can lock what they like for them. */
function jsonIn(bytes: Buffer): Readonly<Record<string, unknown>> {
  try {
    return Object(JSON.parse(bytes.toString('utf8'))) as Readonly<Record<string, unknown>>
  } catch (cause) {
    throw new Fault('damaged', 'the keyring of the datastore cannot be read', { cause })
  }
}

/** An unlocked keyring. */
export class Keyring {
  readonly #chunkId: Buffer
  readonly #held: Secrets | WriterSecrets
  /** Ids, by kind. */
  readonly #macs: Readonly<Record<ChunkKind, ReturnType<typeof blake3Mac>>>
  readonly #segments: Buffer
  readonly #prints: KeyObject
  readonly #signer: KeyObject
  /** Public half of the signer, 32 bytes. */
  readonly signer: Buffer

  constructor(held: Secrets | WriterSecrets) {
    this.#held = held
    this.#chunkId = held.chunkId
    const macOf = (kind: ChunkKind) => blake3Mac(derived(held.chunkId, Buffer.alloc(0), `hakobune id ${kind}`))
    this.#macs = {
      [kinds.content]: macOf(kinds.content),
      [kinds.map]: macOf(kinds.map),
      [kinds.tree]: macOf(kinds.tree),
    }
    this.#segments = derived(held.chunkId, Buffer.alloc(0), 'hakobune segment')
    this.#prints = createSecretKey(derived(held.chunkId, Buffer.alloc(0), 'hakobune print'))
    this.#signer = signingKey(held.signer)
    this.signer = rawPublic(this.#signer)
  }

  /** All of them. @throws Fault `denied` for a host that only adds */
  get secrets(): Secrets {
    if ('packs' in this.#held) return this.#held
    throw new Fault('denied', 'this key adds backups to the datastore, and opens none', {
      remedy: 'Use the passphrase, the recovery key, or the key of somebody who may read it.',
    })
  }

  /** @throws Fault `denied` for a host that only adds */
  requireReading(): Secrets {
    return this.secrets
  }

  /** False for a host that only adds. */
  get canRead(): boolean {
    return 'packs' in this.#held
  }

  /** The key new packs are sealed with: its place in the list. @throws Fault `denied` for a host that only adds */
  get epoch(): number {
    return this.secrets.packs.length - 1
  }

  /** 32 bytes. Nobody without the key can tell whether some content is stored. */
  idOf(kind: ChunkKind, content: Uint8Array): Buffer {
    return this.#macs[kind](content)
  }

  /** @param id its first bytes, or all of them. Ids from before BLAKE3 are ids as well. */
  isIdOf(id: Buffer, kind: ChunkKind, content: Uint8Array): boolean {
    const isIt = (made: Buffer) => made.subarray(0, id.length).equals(id)
    if (isIt(this.idOf(kind, content))) return true
    return isIt(
      createHmac('sha256', this.#chunkId)
        .update(Buffer.from([kind]))
        .update(content)
        .digest(),
    )
  }

  /** 16 bytes that another content has by no chance; somebody with the keys can make one that has. Not for those without them. */
  printOf(content: Uint8Array): Buffer {
    const mac = createCipheriv('aes-256-gcm', this.#prints, printNonce)
    mac.setAAD(content)
    mac.final()
    return mac.getAuthTag()
  }

  /** Of a disk of this size with this map. */
  digestOf(sizeBytes: number, root: Uint8Array): Buffer {
    const size = Buffer.alloc(8)
    size.writeBigUInt64LE(BigInt(sizeBytes))
    return createHmac('sha256', this.#chunkId).update(size).update(root).digest()
  }

  /** For something new. */
  freshKey(random: Random, what: Sealed): SealKey {
    const held = this.#held
    if ('packs' in held) {
      const [epoch, salt] = [this.epoch, Buffer.from(random.bytes(keyBytes))]
      return { epoch, isInbox: false, salt, key: this.keyOf({ epoch, isInbox: false, salt }, what) }
    }
    const { epoch, publicKey } = held.inbox
    const pair = freshPair()
    const key = inboxKey(shared(pair.privateKey, publicKey), pair.publicKey, publicKey, what)
    return { epoch, isInbox: true, salt: pair.publicKey, key }
  }

  /**
   * Of something that is there.
   * @throws Fault `denied` when the keyring is older than it, or opens nothing at all; `damaged` when its salt makes no key
   */
  keyOf({ epoch, isInbox, salt }: Omit<SealKey, 'key'>, what: Sealed): Buffer {
    const secret = this.secrets.packs[epoch]
    if (!secret) throw new ForeignFault(`the keyring has no key number ${epoch}: it is older than what it is to open`)
    if (!isInbox) return derived(secret, salt, what)
    const own = inboxOf(secret)
    return inboxKey(shared(own, salt), salt, publicOf(own), what)
  }

  macOfSegment(): ReturnType<typeof createHmac> {
    return createHmac('sha256', this.#segments)
  }

  sign(text: string): Buffer {
    return sign(null, Buffer.from(text), this.#signer)
  }

  /** Whom a signature is by, where that is not the datastore itself. */
  get writer(): Writer | undefined {
    return 'writer' in this.#held ? this.#held.writer : undefined
  }

  /** Whether it is of the datastore with this signer. @param signer public half, 32 bytes */
  isOf(signer: Buffer): boolean {
    return this.writer ? isVouchedFor(this.writer, signer) : this.signer.equals(signer)
  }

  /** What a host that only adds is given. Made anew, it has the same signer and the newest key to seal with. */
  secretsOfWriter({
    id,
    namespace = '',
  }: {
    readonly id: string
    readonly namespace?: string | undefined
  }): WriterSecrets {
    const { chunkId, packs, signer } = this.secrets
    const own = derived(signer, Buffer.alloc(0), `hakobune writer ${id}`)
    const publicKey = rawPublic(signingKey(own))
    const epoch = packs.length - 1
    const inbox = { epoch, publicKey: publicOf(inboxOf(packs[epoch] ?? Buffer.alloc(0))) }
    const unsigned = { id, namespace, publicKey }
    return { chunkId, inbox, signer: own, writer: { ...unsigned, signature: this.sign(vouching(unsigned)) } }
  }
}

function inboxOf(packSecret: Buffer): KeyObject {
  return privateOf(derived(packSecret, Buffer.alloc(0), 'hakobune inbox'))
}

function inboxKey(secret: Buffer, ephemeral: Buffer, publicKey: Buffer, what: Sealed): Buffer {
  return derived(secret, Buffer.concat([ephemeral, publicKey]), what)
}

function vouching({ id, namespace, publicKey }: Omit<Writer, 'signature'>): string {
  return `hakobune writer ${id} ${namespace === '' ? '_' : namespace} ${publicKey.toString('base64')}`
}

/** @param signer of the datastore, 32 bytes */
export function isVouchedFor(writer: Writer, signer: Buffer): boolean {
  return isSigned(vouching(writer), writer.signature, signer)
}

export function printWriter({ id, namespace, publicKey, signature }: Writer): PrintedWriter {
  return { id, namespace, public: publicKey.toString('base64'), signature: signature.toString('base64') }
}

export function parseWriter({ id, namespace, public: publicKey, signature }: PrintedWriter): Writer {
  return { id, namespace, publicKey: Buffer.from(publicKey, 'base64'), signature: Buffer.from(signature, 'base64') }
}

export function printWriterSecrets({ chunkId, inbox, signer, writer }: WriterSecrets): Buffer {
  const text = (bytes: Buffer) => bytes.toString('base64')
  return Buffer.from(
    JSON.stringify({
      chunkId: text(chunkId),
      epoch: inbox.epoch,
      inbox: text(inbox.publicKey),
      signer: text(signer),
      writer: printWriter(writer),
    }),
  )
}

/** Sealed for us by somebody who had all keys. @throws Fault `damaged` */
export function parseWriterSecrets(bytes: Buffer): WriterSecrets {
  const checked = checkProperties(writerProperties, jsonIn(bytes))
  if (!checked.ok) throw new Fault('damaged', 'the key of a host that only adds does not open to what it should')
  const { chunkId, epoch, inbox, signer, writer } = checked.values
  const key = (text: string) => Buffer.from(text, 'base64')
  return {
    chunkId: key(chunkId),
    inbox: { epoch, publicKey: key(inbox) },
    signer: key(signer),
    writer: parseWriter(writer),
  }
}

/** @param signer public half, 32 bytes */
export function isSigned(text: string, signature: Buffer, signer: Buffer): boolean {
  if (signer.length !== keyBytes) return false
  return verifySignature(null, Buffer.from(text), publicKeyOf(signer), signature)
}

/** As `isSigned`, in another thread: each takes a tenth of a millisecond. */
export async function whetherSigned(text: string, signature: Buffer, signer: Buffer): Promise<boolean> {
  if (signer.length !== keyBytes) return false
  return new Promise((resolve, reject) => {
    verifySignature(null, Buffer.from(text), publicKeyOf(signer), signature, (error, isGood) => {
      if (error) reject(error)
      else resolve(isGood)
    })
  })
}

function publicKeyOf(signer: Buffer): KeyObject {
  const known = signerKeys.get(signer)
  if (known) return known
  const key = createPublicKey({ key: Buffer.concat([ed25519Public, signer]), format: 'der', type: 'spki' })
  signerKeys.set(signer, key)
  return key
}

/** Made once for as many manifests as are looked at. */
const signerKeys = new WeakMap<Buffer, KeyObject>()

/** HKDF-SHA-256, 32 bytes. */
export function derived(key: Uint8Array, salt: Uint8Array, info: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, info, idBytes))
}

/** What comes before the 32 bytes of a key in its DER form (RFC 8410). */
const ed25519Private = Buffer.from('302e020100300506032b657004220420', 'hex')
const ed25519Public = Buffer.from('302a300506032b6570032100', 'hex')

function rawPublic(key: KeyObject): Buffer {
  return Buffer.from(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-keyBytes))
}

function signingKey(secret: Buffer): KeyObject {
  return createPrivateKey({ key: Buffer.concat([ed25519Private, secret]), format: 'der', type: 'pkcs8' })
}
