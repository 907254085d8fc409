/**
 * How a datastore's keyring is locked: the keyring sealed with a root key, and the root key once for each way to it.
 *
 * One file says all of it, and a change is a new file with the next number: who reads always finds one that is whole.
 */
import { Fault } from '#base/fault.ts'
import { checkProperties } from '#base/schema/check.ts'
import { integer, string } from '#base/schema/schema.ts'
import type { Random } from '#base/random.ts'
import { seal, unseal } from '../sealed.ts'
import { nonceBytes, openBox, sealBox } from './box.ts'
import { formatVersion } from '../format.ts'
import { Keyring, parseSecrets, parseWriterSecrets, printSecrets, printWriterSecrets, type Secrets } from './keyring.ts'
import { checkNamespace } from '../point.ts'
import { type NewSlot, newSlot, opened, rewrapped, type Slot, slotList, type SlotSecret } from './slot.ts'

const slotsMaximum = 64

export interface KeyFile {
  readonly datastore: string
  readonly generation: number
  readonly ring: Buffer
  readonly slots: readonly Slot[]
}

/** An opened key file: from it the next generation is made. */
export interface Unlocked {
  readonly file: KeyFile
  /** Nobody has it by a way that only adds. */
  readonly root: Buffer | undefined
  readonly keyring: Keyring
  /** The way that was taken. */
  readonly slot: Slot
}

export async function firstKeyFile(
  random: Random,
  datastore: string,
  secrets: Secrets,
  ways: readonly NewSlot[],
): Promise<KeyFile> {
  const root = Buffer.from(random.bytes(32))
  const slots = await Promise.all(ways.map((way) => newSlot(random, () => root, way)))
  return { datastore, generation: 1, ring: sealRing(random, datastore, root, secrets), slots }
}

/** @throws Fault `denied` when the secret opens none of the slots */
export async function unlock(file: KeyFile, secret: SlotSecret): Promise<Unlocked> {
  for (const slot of file.slots) {
    const inside = await opened(slot, secret)
    if (!inside) continue
    if (slot.role === 'write') {
      return { file, root: undefined, keyring: new Keyring(parseWriterSecrets(inside)), slot }
    }
    const root = inside
    const [nonce, sealed] = [file.ring.subarray(0, nonceBytes), file.ring.subarray(nonceBytes)]
    const text = openBox(root, nonce, aboutRing(file.datastore), sealed)
    if (!text) throw new Fault('damaged', 'the keyring of the datastore is damaged: its key is right, its seal is not')
    return { file, root, keyring: new Keyring(parseSecrets(text)), slot }
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
  return withOne(unlocked.file, () => newSlot(random, () => root, way))
}

/** A host that may add backups, in a namespace and below, and read none. @throws Fault `exhausted` */
export async function withWriter(
  random: Random,
  { file, keyring }: Unlocked,
  way: NewSlot,
  namespace = '',
): Promise<KeyFile> {
  checkNamespace(namespace)
  const inside = (id: string) => printWriterSecrets(keyring.secretsOfWriter({ id, namespace }))
  return withOne(file, () => newSlot(random, inside, way, { role: 'write', namespace }))
}

async function withOne(file: KeyFile, made: () => Promise<Slot>): Promise<KeyFile> {
  if (file.slots.length >= slotsMaximum) throw new Fault('exhausted', `a datastore has at most ${slotsMaximum} keys`)
  return next(file, { slots: [...file.slots, await made()] })
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
export function withoutSlot(random: Random, { file, keyring }: Unlocked, id: string, secrets: Secrets): KeyFile {
  const slots = file.slots.filter((slot) => slot.id !== id)
  if (slots.length === file.slots.length) throw new Fault('missing', `the datastore has no key '${id}'`)
  if (!slots.some(({ kind, role }) => kind !== 'recovery' && role === undefined)) {
    throw new Fault('conflict', 'it is the last key beside recovery keys', { remedy: 'Add another one first.' })
  }
  if (isConfirmed(file) && !isConfirmed({ ...file, slots })) {
    throw new Fault('conflict', 'it is the last recovery key somebody has confirmed', {
      remedy: 'Add another one, and confirm it, first.',
    })
  }
  const root = Buffer.from(random.bytes(32))
  if (secrets.chunkId.compare(keyring.secrets.chunkId) !== 0) throw new Error('the chunk key must not change')
  const ring = sealRing(random, file.datastore, root, secrets)
  return next(file, { ring, slots: relocked(slots, secrets, root) })
}

/** Other secrets behind the same slots. */
export function withSecrets(random: Random, unlocked: Unlocked, secrets: Secrets): KeyFile {
  const { file } = unlocked
  const root = rootOf(unlocked)
  return next(file, {
    ring: sealRing(random, file.datastore, root, secrets),
    slots: relocked(file.slots, secrets, root),
  })
}

/** Who only adds seals with the newest key as well. */
function relocked(slots: readonly Slot[], secrets: Secrets, root: Buffer): Slot[] {
  const keyring = new Keyring(secrets)
  return slots.map((slot) => {
    return rewrapped(slot, slot.role === 'write' ? printWriterSecrets(keyring.secretsOfWriter(slot)) : root)
  })
}

/** The owner has shown their recovery key. */
export function withConfirmed({ file, slot }: Unlocked): KeyFile {
  return next(file, { slots: file.slots.map((one) => (one.id === slot.id ? { ...one, confirmed: true } : one)) })
}

/** Somebody holds a recovery key for certain. */
export function isConfirmed({ slots }: Pick<KeyFile, 'slots'>): boolean {
  return slots.some(({ kind, confirmed }) => kind === 'recovery' && confirmed)
}

function next(file: KeyFile, change: Partial<KeyFile>): KeyFile {
  return { ...file, ...change, generation: file.generation + 1 }
}

function sealRing(random: Random, datastore: string, root: Buffer, secrets: Secrets): Buffer {
  const nonce = Buffer.from(random.bytes(nonceBytes))
  return Buffer.concat([nonce, sealBox(root, nonce, aboutRing(datastore), printSecrets(secrets))])
}

function aboutRing(datastore: string): Buffer {
  return Buffer.from(`hakobune keyring ${datastore}`)
}

const properties = {
  version: integer({ minimum: 1, maximum: 65_535 }),
  datastore: string({ maxLength: 36 }),
  generation: integer({ minimum: 1, maximum: 99_999_999 }),
  ring: string({ maxLength: 1_000_000 }),
  slots: slotList,
}

export function printKeyFile({ datastore, generation, ring, slots }: KeyFile): string {
  return seal({
    version: formatVersion,
    datastore,
    generation,
    ring: ring.toString('base64'),
    slots: slots.map((slot) => ({ ...slot })),
  })
}

/** @throws Fault `damaged` */
export function parseKeyFile(text: string, name: string): KeyFile {
  const checked = checkProperties(properties, Object(unseal(text, name)) as Record<string, unknown>)
  if (!checked.ok || checked.values.slots.length === 0 || checked.values.slots.length > slotsMaximum) {
    throw new Fault('damaged', `${name} is damaged: it does not describe the keys of a datastore`)
  }
  const { datastore, generation, ring, slots } = checked.values
  return { datastore, generation, ring: Buffer.from(ring, 'base64'), slots }
}

/** Object name of a generation. */
export function keyFileName(generation: number): string {
  return `keys/${String(generation).padStart(8, '0')}`
}
