/**
 * A way to the keys of a datastore: somebody who knows a passphrase, has the printed recovery key, or a key file.
 *
 * Each is a pair of X25519 keys. The public half stands in the clear, so the root key can be locked for everybody anew
 * (after a rotation, say) without asking anybody for a secret.
 */
import { createHash, type KeyObject } from 'node:crypto'
import { argon2id, standardCost } from '#base/argon2id.ts'
import { readBase32, writeBase32 } from '#base/base32.ts'
import { invalid } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import {
  array,
  boolean,
  enumOf,
  integer,
  object,
  optional,
  string,
  type StaticProperties,
} from '#base/schema/schema.ts'
import { nonceBytes, openBox, sealBox } from './box.ts'
import { derived } from './keyring.ts'
import { freshPair, privateOf, publicOf, shared } from './x25519.ts'

const keyBytes = 32
const checkBytes = 3

export const slotProperties = {
  id: string({ maxLength: 36 }),
  kind: enumOf(['passphrase', 'recovery', 'key']),
  created: integer({ minimum: 0, maximum: 253_402_300_799 }),
  comment: string({ maxLength: 256 }),
  /** Its owner has shown that they have it. */
  confirmed: boolean(),
  /** `write`: it adds backups and reads none. Absent: it opens everything. */
  role: optional(enumOf(['write'])),
  /** Where a slot of role `write` may add, and below. */
  namespace: optional(string({ maxLength: 300 })),
  public: string({ maxLength: 44 }),
  kdf: optional(
    // Bounded, or a hostile file costs all memory.
    object({
      memoryKiB: integer({ minimum: 8, maximum: 1024 * 1024 }),
      passes: integer({ minimum: 1, maximum: 64 }),
      lanes: integer({ minimum: 1, maximum: 64 }),
      salt: string({ maxLength: 44 }),
    }),
  ),
  wrapped: string({ maxLength: 2_048 }),
} as const
export const slotList = array(object(slotProperties))

export type Slot = StaticProperties<typeof slotProperties>

/** What its owner has. */
export type SlotSecret =
  | { readonly kind: 'passphrase'; readonly passphrase: string }
  | { readonly kind: 'recovery'; readonly text: string }
  | { readonly kind: 'key'; readonly key: Buffer }

/** Of a way whose secret is elsewhere, and is not needed to lock something for it. */
export interface PublicHalf {
  readonly kind: 'recovery' | 'key'
  /** 32 bytes. */
  readonly public: Buffer
}

export interface NewSlot {
  readonly secret: SlotSecret | PublicHalf
  readonly comment?: string
  readonly confirmed: boolean
  /** Seconds since 1970. */
  readonly created: number
}

/**
 * @param inside what the slot opens to: the root key, or what a host that only adds is given, for the slot of that id
 * @throws Fault `invalid`
 */
export async function newSlot(
  random: Random,
  inside: (id: string) => Buffer,
  slot: NewSlot,
  limits: Pick<Slot, 'role' | 'namespace'> = {},
): Promise<Slot> {
  const { secret, comment = '', confirmed, created } = slot
  const kdf =
    secret.kind === 'passphrase'
      ? { ...standardCost, salt: Buffer.from(random.bytes(16)).toString('base64') }
      : undefined
  const id = random.uuid()
  const publicKey = 'public' in secret ? checkedPublic(secret.public) : publicOf(await ownKey(secret, kdf))
  const facts = { id, kind: secret.kind, created, comment, confirmed, ...limits, public: publicKey.toString('base64') }
  return rewrapped({ ...facts, ...(kdf && { kdf }), wrapped: '' }, inside(id))
}

function checkedPublic(key: Buffer): Buffer {
  if (key.length !== keyBytes) throw invalid({ 'public-key': `a key has ${keyBytes} bytes` })
  return key
}

/** The same slot, with something else inside. */
export function rewrapped(slot: Slot, inside: Buffer): Slot {
  const publicKey = Buffer.from(slot.public, 'base64')
  const pair = freshPair()
  // A nonce of zeros will do: the key is made for this one text.
  const sealed = sealBox(
    derived(shared(pair.privateKey, publicKey), Buffer.concat([pair.publicKey, publicKey]), `hakobune slot ${slot.id}`),
    Buffer.alloc(nonceBytes),
    about(slot),
    inside,
  )
  return { ...slot, wrapped: Buffer.concat([pair.publicKey, sealed]).toString('base64') }
}

/** What is inside; nothing when the secret is another's. */
export async function opened(slot: Slot, secret: SlotSecret): Promise<Buffer | undefined> {
  if (slot.kind !== secret.kind) return undefined
  const own = await ownKey(secret, slot.kdf)
  const publicKey = publicOf(own)
  if (publicKey.toString('base64') !== slot.public) return undefined
  const wrapped = Buffer.from(slot.wrapped, 'base64')
  const [ephemeral, sealed] = [wrapped.subarray(0, keyBytes), wrapped.subarray(keyBytes)]
  if (ephemeral.length !== keyBytes) return undefined
  const key = derived(shared(own, ephemeral), Buffer.concat([ephemeral, publicKey]), `hakobune slot ${slot.id}`)
  return openBox(key, Buffer.alloc(nonceBytes), about(slot), sealed)
}

/** A slot cannot be passed off as one of another role. */
function about({ id, role }: Slot): Buffer {
  return Buffer.from(role === undefined ? id : `${id} ${role}`)
}

/** The half of a recovery key that may be kept: it locks, and opens nothing. @throws Fault `invalid` */
export function publicHalfOf(text: string): Buffer {
  return publicOf(privateOf(parseRecoveryKey(text)))
}

/** As it is printed: 56 letters in groups of seven. */
export function printRecoveryKey(key: Buffer): string {
  const letters = writeBase32(Buffer.concat([key, checkOf(key)]))
  return letters.match(/.{7}/g)?.join('-') ?? ''
}

/** As somebody types it. @throws Fault `invalid` saying whether letters are missing or wrong */
export function parseRecoveryKey(text: string): Buffer {
  const letters = text.toUpperCase().replace(/[^A-Z0-9]/g, '')
  const wanted = ((keyBytes + checkBytes) * 8) / 5
  if (letters.length !== wanted) {
    throw invalid({ 'recovery-key': `it has ${letters.length} letters; a recovery key has ${wanted}` })
  }
  const bytes = readBase32(letters)
  const key = bytes?.subarray(0, keyBytes)
  if (!key || !bytes?.subarray(keyBytes).equals(checkOf(key))) {
    throw invalid({ 'recovery-key': 'a letter in it is wrong: its check does not match' })
  }
  return Buffer.from(key)
}

function checkOf(key: Buffer): Buffer {
  return createHash('sha256').update(key).digest().subarray(0, checkBytes)
}

async function ownKey(secret: SlotSecret, kdf: Slot['kdf']): Promise<KeyObject> {
  switch (secret.kind) {
    case 'recovery':
      return privateOf(parseRecoveryKey(secret.text))
    case 'key':
      if (secret.key.length !== keyBytes) throw invalid({ 'key-file': `a key has ${keyBytes} bytes` })
      return privateOf(secret.key)
    case 'passphrase':
      return privateOf(await fromPassphrase(secret.passphrase, kdf))
    default:
      return secret satisfies never
  }
}

async function fromPassphrase(passphrase: string, kdf: Slot['kdf']): Promise<Buffer> {
  if (passphrase === '') throw invalid({ passphrase: 'it is empty' })
  if (!kdf) throw invalid({ passphrase: 'this way to the keys has no passphrase' })
  return argon2id(passphrase.normalize('NFC'), Buffer.from(kdf.salt, 'base64'), kdf)
}
