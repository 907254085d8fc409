/**
 * How a datastore's keyring is locked: the keyring sealed with a root key, and the root key once for each way to it.
 *
 * One file says all of it, and a change is a new file with a higher number: who reads always finds one that is whole. Each is
 * signed by the datastore's signer, which is in the keyring, so that anybody can tell it from one somebody else has put there
 * (`found-keys.ts`). Those of before they were signed seal the keyring about something else: a signature cannot be left out.
 */
import { Fault } from '#base/fault.ts'
import { checkProperties } from '#base/schema/check.ts'
import { integer, optional, string } from '#base/schema/schema.ts'
import type { Random } from '#base/random.ts'
import { seal, unseal } from '../sealed.ts'
import { nonceBytes, openBox, sealBox } from './box.ts'
import { formatVersion } from '../format.ts'
import {
  isSigned,
  Keyring,
  parseSecrets,
  parseWriterSecrets,
  printSecrets,
  printWriterSecrets,
  type Secrets,
} from './keyring.ts'
import { checkNamespace } from '../point.ts'
import { type NewSlot, newSlot, opened, rewrapped, type Slot, slotList, type SlotSecret } from './slot.ts'

const slotsMaximum = 64
export const generationMaximum = 99_999_999

export interface KeyFile {
  readonly datastore: string
  readonly generation: number
  readonly ring: Buffer
  readonly slots: readonly Slot[]
  /** By the datastore's signer. Absent in one of before they were signed. */
  readonly signature?: Buffer
}

/** An opened key file: from it the next generation is made. */
export interface Unlocked {
  readonly file: KeyFile
  /** Nobody has it by a way that only adds. */
  readonly root: Buffer | undefined
  readonly keyring: Keyring
  /** The way that was taken. */
  readonly slot: Slot
  /** What the next key file is called by. */
  readonly next: number
}

export async function firstKeyFile(
  random: Random,
  datastore: string,
  secrets: Secrets,
  ways: readonly NewSlot[],
): Promise<KeyFile> {
  const root = Buffer.from(random.bytes(32))
  const slots = await Promise.all(ways.map((way) => newSlot(random, () => root, way)))
  return signed(random, { datastore, generation: 1, slots }, root, secrets)
}

/**
 * @param next a number nobody has taken, above that of the file
 * @throws Fault `denied` when the secret opens none of the slots
 */
export async function unlock(file: KeyFile, secret: SlotSecret, next = file.generation + 1): Promise<Unlocked> {
  for (const slot of file.slots) {
    const inside = await opened(slot, secret)
    if (!inside) continue
    if (slot.role === 'write') {
      return { file, root: undefined, keyring: new Keyring(parseWriterSecrets(inside)), slot, next }
    }
    const root = inside
    const [nonce, sealed] = [file.ring.subarray(0, nonceBytes), file.ring.subarray(nonceBytes)]
    const text = openBox(root, nonce, aboutRing(file), sealed)
    if (!text) throw new Fault('damaged', 'the keyring of the datastore is damaged: its key is right, its seal is not')
    return { file, root, keyring: new Keyring(parseSecrets(text)), slot, next }
  }
  throw wrongSecret(file, secret)
}

function wrongSecret({ slots }: KeyFile, { kind }: SlotSecret): Fault {
  const names = { passphrase: 'passphrase', recovery: 'recovery key', key: 'key file' }
  const ways = [...new Set(slots.map((slot) => names[slot.kind]))].join(', ')
  return new Fault('denied', `the ${names[kind]} does not open the datastore`, { remedy: `It opens by: ${ways}.` })
}

/** One more way in. @throws Fault `exhausted` */
export async function withSlot(random: Random, unlocked: Unlocked, way: NewSlot): Promise<KeyFile> {
  const root = rootOf(unlocked)
  return withOne(random, unlocked, () => newSlot(random, () => root, way))
}

/** A host that may add backups, in a namespace and below, and read none. @throws Fault `exhausted` */
export async function withWriter(random: Random, unlocked: Unlocked, way: NewSlot, namespace = ''): Promise<KeyFile> {
  checkNamespace(namespace)
  const inside = (id: string) => printWriterSecrets(unlocked.keyring.secretsOfWriter({ id, namespace }))
  return withOne(random, unlocked, () => newSlot(random, inside, way, { role: 'write', namespace }))
}

async function withOne(random: Random, unlocked: Unlocked, made: () => Promise<Slot>): Promise<KeyFile> {
  const { slots } = unlocked.file
  if (slots.length >= slotsMaximum) throw new Fault('exhausted', `a datastore has at most ${slotsMaximum} keys`)
  return changed(random, unlocked, { slots: [...slots, await made()] })
}

/** @throws Fault `denied` */
function rootOf({ root, keyring }: Unlocked): Buffer {
  if (root) return root
  throw keyring.canRead
    ? new Error('there is no root key')
    : new Fault('denied', 'this key adds backups to the datastore, and changes no keys')
}

/**
 * Takes a way away. Who had it may have kept the root key, so there is a new one, and what is sealed from now on has a
 * new key as well.
 * @throws Fault `missing`; `conflict` for the last one, or the last confirmed recovery key
 */
export function withoutSlot(random: Random, unlocked: Unlocked, id: string, secrets: Secrets): KeyFile {
  const { file, keyring } = unlocked
  const slots = file.slots.filter((slot) => slot.id !== id)
  if (slots.length === file.slots.length) throw new Fault('missing', `the datastore has no key '${id}'`)
  if (!slots.some(({ kind, role }) => kind !== 'recovery' && role === undefined)) {
    throw new Fault('conflict', 'it is the last key beside recovery keys', { remedy: 'Add another one first.' })
  }
  if (isConfirmed(file) && !isConfirmed({ slots })) {
    throw new Fault('conflict', 'it is the last recovery key somebody has confirmed', {
      remedy: 'Add another one, and confirm it, first.',
    })
  }
  if (secrets.chunkId.compare(keyring.secrets.chunkId) !== 0) throw new Error('the chunk key must not change')
  const root = Buffer.from(random.bytes(32))
  return changed(random, unlocked, { slots: relocked(slots, secrets, root), root, secrets })
}

/** Other secrets behind the same slots. */
export function withSecrets(random: Random, unlocked: Unlocked, secrets: Secrets): KeyFile {
  const slots = relocked(unlocked.file.slots, secrets, rootOf(unlocked))
  return changed(random, unlocked, { slots, secrets })
}

/** Who only adds seals with the newest key as well. */
function relocked(slots: readonly Slot[], secrets: Secrets, root: Buffer): Slot[] {
  const keyring = new Keyring(secrets)
  return slots.map((slot) => {
    return rewrapped(slot, slot.role === 'write' ? printWriterSecrets(keyring.secretsOfWriter(slot)) : root)
  })
}

/** The owner has shown their recovery key. */
export function withConfirmed(random: Random, unlocked: Unlocked): KeyFile {
  const { file, slot } = unlocked
  return changed(random, unlocked, {
    slots: file.slots.map((one) => (one.id === slot.id ? { ...one, confirmed: true } : one)),
  })
}

/** Somebody holds a recovery key for certain. */
export function isConfirmed({ slots }: Pick<KeyFile, 'slots'>): boolean {
  return slots.some(({ kind, confirmed }) => kind === 'recovery' && confirmed)
}

interface Change {
  readonly slots: readonly Slot[]
  readonly root?: Buffer
  readonly secrets?: Secrets
}

/** @throws Fault `exhausted` */
function changed(random: Random, unlocked: Unlocked, { slots, root, secrets }: Change): KeyFile {
  const { file, keyring, next: generation } = unlocked
  if (generation > generationMaximum) throw new Fault('exhausted', 'there is no number left for another key file')
  const facts = { datastore: file.datastore, generation, slots }
  return signed(random, facts, root ?? rootOf(unlocked), secrets ?? keyring.secrets)
}

function signed(
  random: Random,
  facts: Pick<KeyFile, 'datastore' | 'generation' | 'slots'>,
  root: Buffer,
  secrets: Secrets,
): KeyFile {
  const nonce = Buffer.from(random.bytes(nonceBytes))
  const about = aboutRing({ ...facts, signature: nonce })
  const unsigned = { ...facts, ring: Buffer.concat([nonce, sealBox(root, nonce, about, printSecrets(secrets))]) }
  return { ...unsigned, signature: new Keyring(secrets).sign(textSigned(unsigned)) }
}

/** Whether somebody who had the keyring made it. @param signer public half, 32 bytes */
export function isGenuine(file: KeyFile, signer: Buffer): boolean {
  return file.signature !== undefined && isSigned(textSigned(file), file.signature, signer)
}

function textSigned(file: KeyFile): string {
  return `hakobune keys ${JSON.stringify(printedFacts(file))}`
}

function aboutRing({ datastore, signature }: Pick<KeyFile, 'datastore' | 'signature'>): Buffer {
  return Buffer.from(`hakobune ${signature ? 'signed ' : ''}keyring ${datastore}`)
}

const properties = {
  version: integer({ minimum: 1, maximum: 65_535 }),
  datastore: string({ maxLength: 36 }),
  generation: integer({ minimum: 1, maximum: generationMaximum }),
  ring: string({ maxLength: 1_000_000 }),
  slots: slotList,
  signature: optional(string({ maxLength: 88 })),
}

export function printKeyFile(file: KeyFile): string {
  const { signature } = file
  return seal({ ...printedFacts(file), ...(signature && { signature: signature.toString('base64') }) })
}

function printedFacts({ datastore, generation, ring, slots }: KeyFile) {
  return {
    version: formatVersion,
    datastore,
    generation,
    ring: ring.toString('base64'),
    slots: slots.map((slot) => ({ ...slot })),
  }
}

/** @throws Fault `damaged` */
export function parseKeyFile(text: string, name: string): KeyFile {
  const checked = checkProperties(properties, Object(unseal(text, name)) as Record<string, unknown>)
  if (!checked.ok || checked.values.slots.length === 0 || checked.values.slots.length > slotsMaximum) {
    throw new Fault('damaged', `${name} is damaged: it does not describe the keys of a datastore`)
  }
  const { datastore, generation, ring, slots, signature } = checked.values
  return {
    datastore,
    generation,
    ring: Buffer.from(ring, 'base64'),
    slots,
    ...(signature !== undefined && { signature: Buffer.from(signature, 'base64') }),
  }
}

/** Object name of a generation. */
export function keyFileName(generation: number): string {
  return `keys/${String(generation).padStart(8, '0')}`
}
