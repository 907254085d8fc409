/**
 * The secrets of a datastore, and what is derived from them.
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
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { type ChunkKind, idBytes, kinds } from './format.ts'

const keyBytes = 32
/** The same for all: prints are compared, and nobody without the keys sees one. */
const printNonce = Buffer.alloc(12)
const epochsMaximum = 4_096

export interface Secrets {
  readonly chunkId: Buffer
  readonly packs: readonly Buffer[]
  /** Private half of the Ed25519 pair manifests are signed with. */
  readonly signer: Buffer
}

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
  const { chunkId, packs, signer } = Object(JSON.parse(bytes.toString('utf8'))) as Readonly<Record<string, unknown>>
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

/** An unlocked keyring. */
export class Keyring {
  readonly secrets: Secrets
  readonly #kindBytes = Object.values(kinds).map((kind) => Buffer.from([kind]))
  readonly #segments: Buffer
  /** Seals what manifests say. */
  readonly manifests: Buffer
  readonly #prints: KeyObject
  readonly #signer: KeyObject
  /** Public half of the signer, 32 bytes. */
  readonly signer: Buffer

  constructor(secrets: Secrets) {
    this.secrets = secrets
    this.#segments = derived(secrets.chunkId, Buffer.alloc(0), 'hakobune segment')
    this.manifests = derived(secrets.chunkId, Buffer.alloc(0), 'hakobune manifest')
    this.#prints = createSecretKey(derived(secrets.chunkId, Buffer.alloc(0), 'hakobune print'))
    this.#signer = signingKey(secrets.signer)
    this.signer = Buffer.from(createPublicKey(this.#signer).export({ format: 'der', type: 'spki' }).subarray(-keyBytes))
  }

  /** 32 bytes. Nobody without the key can tell whether some content is stored. */
  idOf(kind: ChunkKind, content: Uint8Array): Buffer {
    return createHmac('sha256', this.secrets.chunkId)
      .update(this.#kindBytes[kind] ?? Buffer.from([kind]))
      .update(content)
      .digest()
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
    return createHmac('sha256', this.secrets.chunkId).update(size).update(root).digest()
  }

  /** The key new packs are sealed with: its place in the list. */
  get epoch(): number {
    return this.secrets.packs.length - 1
  }

  /** @throws Fault `denied` when the keyring is older than the pack */
  packKey(epoch: number, salt: Uint8Array): Buffer {
    const key = this.secrets.packs[epoch]
    if (!key) throw new Fault('denied', `the keyring has no key number ${epoch}: it is older than what it is to open`)
    return derived(key, salt, 'hakobune pack')
  }

  macOfSegment(): ReturnType<typeof createHmac> {
    return createHmac('sha256', this.#segments)
  }

  sign(text: string): Buffer {
    return sign(null, Buffer.from(text), this.#signer)
  }
}

/** Read once: a list asks a thousand times. */
const signers = new WeakMap<Buffer, KeyObject>()

/** @param signer public half, 32 bytes */
export function isSigned(text: string, signature: Buffer, signer: Buffer): boolean {
  const key =
    signers.get(signer) ?? createPublicKey({ key: Buffer.concat([ed25519Public, signer]), format: 'der', type: 'spki' })
  signers.set(signer, key)
  return verifySignature(null, Buffer.from(text), key, signature)
}

/** HKDF-SHA-256, 32 bytes. */
export function derived(key: Uint8Array, salt: Uint8Array, info: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, info, idBytes))
}

/** What comes before the 32 bytes of a key in its DER form (RFC 8410). */
const ed25519Private = Buffer.from('302e020100300506032b657004220420', 'hex')
const ed25519Public = Buffer.from('302a300506032b6570032100', 'hex')

function signingKey(secret: Buffer): KeyObject {
  return createPrivateKey({ key: Buffer.concat([ed25519Private, secret]), format: 'der', type: 'pkcs8' })
}
