/**
 * What a backup consists of. With its manifest a backup exists; it is put last and never changed.
 *
 * Who it is of and when stands in the clear, so that lists and retention need no key; everything else is sealed. It is
 * signed, so that a copy can be told from a forgery without a key, too.
 */
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { ForeignFault } from '../foreign.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { checkProperties } from '#base/schema/check.ts'
import {
  array,
  boolean,
  enumOf,
  integer,
  object,
  optional,
  record,
  string,
  type StaticProperties,
} from '#base/schema/schema.ts'
import { diskNamePattern, storedFilePattern, topListsMaximum } from '../format.ts'
import { seal, unseal } from '../sealed.ts'
import type { Json } from '#store/store.ts'
import { nonceBytes, openBox, sealBox } from '../keys/box.ts'
import { diskMaximumBytes, fileMaximumBytes, formatVersion, manifestMaximumBytes, partsMaximum } from '../format.ts'
import {
  isSigned,
  isVouchedFor,
  type Keyring,
  parseWriter,
  printWriter,
  type SealKey,
  whetherSigned,
  writerOuterProperties,
} from '../keys/keyring.ts'
import { isBelow, isSamePoint, pathOfPoint, printPoint, type RestorePoint } from '../point.ts'

const id = string({ pattern: /[0-9a-f]{64}/ })
const count = integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
/** Of the name of a record of changes. */
export const recordMaximumLength = 1_024
const latest = 253_402_300_799

const disk = object({
  name: string({ pattern: diskNamePattern }),
  sizeBytes: integer({ minimum: 0, maximum: diskMaximumBytes }),
  digest: id,
  root: array(id),
  prints: optional(array(id)),
  chunks: count,
  dataBytes: count,
  newChunks: count,
  newStoredBytes: count,
  record: optional(string({ maxLength: recordMaximumLength })),
  reading: optional(
    object({
      how: enumOf(['scan', 'changes']),
      /** Why all of it was read although changes were recorded. */
      reason: optional(string()),
      since: optional(string({ maxLength: 512 })),
      changedBytes: optional(count),
      auditedChunks: optional(count),
      /** Chunks called unchanged that were not. */
      hits: optional(count),
    }),
  ),
})

const tree = object({
  name: string({ pattern: diskNamePattern }),
  digest: id,
  /** Of the lists of lists of pieces. */
  root: array(id),
  pieces: count,
  /** With the root. */
  entries: count,
  files: count,
  dataBytes: count,
  reusedFiles: count,
  newChunks: count,
  newStoredBytes: count,
  highestUid: count,
  highestGid: count,
  /** The id map it was read through, as text: ids in it mean the same where this is the same. */
  ids: string({ maxLength: 65_536 }),
})

const file = object({
  name: string({ pattern: storedFilePattern }),
  sizeBytes: integer({ minimum: 0, maximum: fileMaximumBytes }),
  chunks: array(id),
})

const bodyProperties = { disks: array(disk), trees: array(tree), files: array(file), facts: record() }
const outerProperties = {
  version: integer({ minimum: 1, maximum: 65_535 }),
  namespace: string({ maxLength: 300 }),
  type: enumOf(['vm', 'ct', 'host']),
  id: string({ maxLength: 63 }),
  time: integer({ minimum: 0, maximum: latest }),
  pointInTime: string({ pattern: /\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z/ }),
  finished: integer({ minimum: 0, maximum: latest }),
  epoch: integer({ minimum: 0, maximum: 65_535 }),
  inbox: optional(boolean()),
  salt: string({ maxLength: 44 }),
  body: string({ maxLength: manifestMaximumBytes }),
  writer: optional(object(writerOuterProperties)),
  signature: string({ maxLength: 88 }),
}

export type ManifestBody = StaticProperties<typeof bodyProperties>
export type ManifestDisk = ManifestBody['disks'][number]
export type Reading = NonNullable<ManifestDisk['reading']>
export type ManifestTree = ManifestBody['trees'][number]
export type ManifestFile = ManifestBody['files'][number]

/** What can be read without a key. */
export interface ManifestHead {
  readonly point: RestorePoint
  readonly pointInTime: string
  /** Seconds since 1970. */
  readonly finished: number
}

/** All of it. */
export type Manifest = ManifestHead & ManifestBody

/** A manifest as it was read: its body still sealed. */
export interface SealedManifest extends ManifestHead {
  readonly body: Buffer
  readonly sealedWith: Omit<SealKey, 'key'>
  /** By the datastore, or somebody it vouches for. @param signer of the datastore, public half */
  readonly isSigned: (signer: Buffer) => boolean
  /** As `isSigned`, beside what else is to be done: for who looks at many. */
  readonly whetherSigned: (signer: Buffer) => Promise<boolean>
}

interface Signed {
  readonly text: string
  readonly signature: Buffer
  /** Public half of the key of whoever should have signed it. */
  readonly by: Buffer
}

export function manifestName(point: RestorePoint): string {
  return `backups/${pathOfPoint(point)}`
}

export function printManifest(keyring: Keyring, random: Random, head: ManifestHead, body: ManifestBody): string {
  const { point, pointInTime, finished } = head
  const nonce = Buffer.from(random.bytes(nonceBytes))
  const text = zstdCompressSync(Buffer.from(JSON.stringify(body)))
  const { key, epoch, isInbox, salt } = keyring.freshKey(random, 'hakobune manifest')
  const sealed = Buffer.concat([nonce, sealBox(key, nonce, aboutBody(point), text)])
  const { namespace, type, id: guest, time } = point
  const facts = { version: formatVersion, namespace, type, id: guest, time, pointInTime, finished }
  const { writer } = keyring
  const unsigned = {
    ...facts,
    epoch,
    ...(isInbox && { inbox: true }),
    salt: salt.toString('base64'),
    body: sealed.toString('base64'),
    ...(writer && { writer: printWriter(writer) }),
  }
  return seal({ ...unsigned, signature: keyring.sign(JSON.stringify(unsigned)).toString('base64') })
}

/** @throws Fault `damaged` naming the manifest; `invalid` when a newer version wrote it */
export function parseManifest(text: string, expected: RestorePoint): SealedManifest {
  const name = nameOf(expected)
  const value = Object(unseal(text, name)) as Record<string, unknown>
  if (typeof value.version === 'number' && value.version !== formatVersion) {
    throw new Fault('invalid', `${name} has version ${value.version}; this program reads version ${formatVersion}`, {
      remedy: 'Use the version of Hakobune that wrote it, or a newer one.',
    })
  }
  const checked = checkProperties(outerProperties, value)
  if (!checked.ok) throw damaged(name, checked.errors)
  const {
    namespace,
    type,
    id: guest,
    time,
    pointInTime,
    finished,
    body,
    signature,
    epoch,
    inbox,
    salt,
  } = checked.values
  const point = { namespace, type, id: guest, time }
  // A manifest put under another name is a forgery, however well it is signed.
  if (!isSamePoint(point, expected)) {
    throw new Fault('damaged', `${name} is damaged: it is that of ${printPoint(point)}`)
  }
  const { signature: _, ...unsigned } = value
  const signed = (signer: Buffer): Signed | undefined => {
    const writer = checked.values.writer && parseWriter(checked.values.writer)
    if (writer && !(isVouchedFor(writer, signer) && isBelow(namespace, writer.namespace))) return undefined
    const by = writer?.publicKey ?? signer
    return { text: JSON.stringify(unsigned), signature: Buffer.from(signature, 'base64'), by }
  }
  return {
    point,
    pointInTime,
    finished,
    body: Buffer.from(body, 'base64'),
    sealedWith: { epoch, isInbox: inbox === true, salt: Buffer.from(salt, 'base64') },
    isSigned: (signer) => {
      const one = signed(signer)
      return one !== undefined && isSigned(one.text, one.signature, one.by)
    },
    whetherSigned: async (signer) => {
      const one = signed(signer)
      return one !== undefined && (await whetherSigned(one.text, one.signature, one.by))
    },
  }
}

/** @throws Fault `damaged`; `denied` when it is signed by somebody else */
export function openManifest(keyring: Keyring, manifest: SealedManifest): ManifestBody {
  const name = nameOf(manifest.point)
  keyring.requireReading()
  // First: nothing somebody else has put there is worth a look at what it is sealed with.
  if (!manifest.isSigned(keyring.signer)) {
    throw new ForeignFault(`${name} is not signed by this datastore`, { remedy: 'Somebody else has put it there.' })
  }
  const key = keyOf(keyring, manifest, name)
  const [nonce, sealed] = [manifest.body.subarray(0, nonceBytes), manifest.body.subarray(nonceBytes)]
  const text = openBox(key, nonce, aboutBody(manifest.point), sealed)
  if (!text) throw new Fault('damaged', `${name} is damaged: its seal is broken`)
  const checked = checkProperties(bodyProperties, readBody(text, name))
  if (!checked.ok) throw damaged(name, checked.errors)
  const { disks, trees, files } = checked.values
  const parts = [...disks, ...trees, ...files]
  if (new Set(parts.map((part) => part.name)).size !== parts.length || parts.length > partsMaximum) {
    throw new Fault('damaged', `${name} is damaged: too many disks, trees or files, or two of one name`)
  }
  if (trees.some(({ root }) => root.length > topListsMaximum)) {
    throw new Fault('damaged', `${name} is damaged: a tree in it has too many lists`)
  }
  return checked.values
}

/** A host that only adds may sign what makes no key. */
function keyOf(keyring: Keyring, { sealedWith }: SealedManifest, name: string): Buffer {
  try {
    return keyring.keyOf(sealedWith, 'hakobune manifest')
  } catch (fault) {
    throw isFault(fault, 'damaged')
      ? new Fault('damaged', `${name} is damaged: ${fault.message}`, { cause: fault })
      : fault
  }
}

function readBody(text: Buffer, name: string): Record<string, unknown> {
  try {
    const plain = zstdDecompressSync(text, { maxOutputLength: manifestMaximumBytes })
    return Object(JSON.parse(plain.toString('utf8'))) as Record<string, unknown>
  } catch (cause) {
    throw new Fault('damaged', `${name} is damaged: it cannot be read`, { cause })
  }
}

function aboutBody(point: RestorePoint): Buffer {
  return Buffer.from(pathOfPoint(point))
}

function nameOf(point: RestorePoint): string {
  return `the manifest of backup ${printPoint(point)}`
}

/** Bytes of data in a backup; holes do not count. */
export function dataBytesOf({ disks, trees }: ManifestBody): number {
  return [...disks, ...trees].reduce((sum, { dataBytes }) => sum + dataBytes, 0)
}

/** Bytes it added to the datastore. */
export function newStoredBytesOf({ disks, trees }: ManifestBody): number {
  return [...disks, ...trees].reduce((sum, { newStoredBytes }) => sum + newStoredBytes, 0)
}

function damaged(name: string, errors: Readonly<Record<string, string>>): Fault {
  const wrong = Object.entries(errors).map(([field, text]) => `${field}: ${text}`)
  return new Fault('damaged', `${name} is damaged: ${wrong.join('; ')}`)
}

export type Facts = { readonly [key: string]: Json | undefined }
