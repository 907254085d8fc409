/**
 * What a list has opened, kept on this machine for the next process that lists: a thousand signatures take a third of a
 * second of a processor, and every task is a process.
 *
 * The file is sealed by the datastore's own secrets and bound to the datastore, so that whoever can open it could open the
 * manifests, and nobody else can make one. Each entry counts as long as the place says that the manifest's file is the same.
 * A file that cannot be read, or not be written, costs time and nothing else.
 */
import { join } from 'node:path'
import { readFile } from 'node:fs/promises'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { codeOf, makeDirectory, writeFileAtomic } from '#host/files.ts'
import { nonceBytes, openBox, sealBox } from '../keys/box.ts'
import { derived, type Keyring } from '../keys/keyring.ts'
import { type SeenEntry, SeenPoints } from './listing.ts'

/** Opened since the file was written: with less, writing it costs more than it saves. */
const worthWriting = 32
const maximumBytes = 64 * 2 ** 20

export interface KeptListNeeds {
  /** Folder of this node's own. */
  readonly dir: string
  readonly keyring: Keyring
  readonly random: Random
}

/** What was kept of the datastore, or nothing at all. */
export async function readKeptList(datastore: string, { dir, keyring }: KeptListNeeds): Promise<SeenPoints> {
  try {
    const bytes = await readFile(fileOf(dir, datastore))
    const text = openBox(keyOf(keyring), bytes.subarray(0, nonceBytes), about(datastore), bytes.subarray(nonceBytes))
    if (!text) return new SeenPoints(datastore)
    const plain = zstdDecompressSync(text, { maxOutputLength: maximumBytes })
    // Nobody without the keys wrote this.
    return new SeenPoints(datastore, JSON.parse(plain.toString('utf8')) as SeenEntry[])
  } catch {
    return new SeenPoints(datastore)
  }
}

/** Keeps what has been seen, when it is worth it. @returns false when it is not, or cannot be */
export async function writeKeptList(seen: SeenPoints, { dir, keyring, random }: KeptListNeeds): Promise<boolean> {
  if (seen.unkept < worthWriting) return false
  const text = Buffer.from(JSON.stringify(seen.entries()))
  seen.unkept = 0
  if (text.length > maximumBytes) return false
  const nonce = Buffer.from(random.bytes(nonceBytes))
  const sealed = sealBox(keyOf(keyring), nonce, about(seen.datastore), zstdCompressSync(text))
  try {
    await makeDirectory(dir, 0o700)
    await writeFileAtomic(fileOf(dir, seen.datastore), Buffer.concat([nonce, sealed]), 0o600, true)
    return true
  } catch (cause) {
    if (isFault(cause) || codeOf(cause) !== undefined) return false
    throw cause
  }
}

const fileOf = (dir: string, datastore: string) => join(dir, datastore)
const about = (datastore: string) => Buffer.from(`list of ${datastore}`)
const keyOf = ({ secrets }: Keyring) => derived(secrets.chunkId, Buffer.alloc(0), 'hakobune list')
