/**
 * Reads a backup again and compares it with its digests.
 *
 * A backup is verified from its manifest down: files, indexes, trees, each chunk. All damage is collected, up to
 * a bound, so that one bad chunk does not hide the next. `verify-datastore.ts` looks at whole datastores.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { Fault, isFault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import { printBackupId } from '#datastore/backup-id.ts'
import { chunkBytes } from './format.ts'
import type { StoredChunk } from './index-file.ts'
import { KnownChunks } from './known-chunks.ts'
import { dataBytesOf, treesOf } from './manifest.ts'
import type { BackupReader } from './reader.ts'
import { verifyTree } from '#datastore/tree/verify.ts'

const damagesMaximum = 64

export interface VerifyOptions {
  /** Share of the work done, 0 to 1. */
  readonly onProgress?: (fraction: number) => void
  readonly signal?: AbortSignal | undefined
}

export interface VerifiedBackup {
  readonly chunks: number
  /** Of data checked. */
  readonly bytes: number
}

/**
 * Checks every byte a restore of this backup would need.
 * @throws Fault `damaged` naming each damaged chunk or file: `chunk <digest> in pack <id> at <offset> is damaged: …`
 */
export async function verifyBackup(reader: BackupReader, options: VerifyOptions = {}): Promise<VerifiedBackup> {
  const damages: string[] = []
  const totalBytes = dataBytesOf(reader.manifest)
  for (const file of reader.manifest.files) await noting(damages, () => reader.file(file.name))
  for (const disk of reader.manifest.disks) {
    await noting(damages, () => checkIndexFile(reader, disk.name, disk.indexSha256))
  }
  for (const tree of treesOf(reader.manifest)) {
    await noting(damages, () => checkTreeFile(reader, tree.name, tree.treeSha256))
  }
  const seen = new KnownChunks()
  let [chunks, bytes] = [0, 0]
  const check = async (entry: StoredChunk, ofBytes: number) => {
    if (options.signal?.aborted) throw new Fault('aborted', 'the verification was interrupted')
    if (!seen.find(entry.digest)) {
      await noting(damages, () => reader.chunk(entry))
      seen.add(entry.digest, { pack: 0, offset: entry.offset, length: entry.length })
    }
    chunks += 1
    bytes = Math.min(totalBytes, bytes + ofBytes)
    if (chunks % 64 === 0) options.onProgress?.(bytes / Math.max(1, totalBytes))
  }
  for (const { name } of reader.manifest.disks) {
    const walk = async () => {
      for await (const entry of reader.disk(name).entries()) await check(entry, chunkBytes)
    }
    await noting(damages, walk)
  }
  for (const { name } of treesOf(reader.manifest)) {
    await noting(damages, () =>
      verifyTree(
        reader.tree(name),
        async (open, chunk, of) => check(await reader.treeFile(name).placed(open, chunk), of),
        (damage) => noting(damages, () => Promise.reject(damage)),
      ),
    )
  }
  options.onProgress?.(1)
  throwDamages(damages, `backup ${printBackupId(reader.id)}`)
  return { chunks, bytes: totalBytes }
}

export function checkIndexFile(reader: BackupReader, disk: string, sha256: string): Promise<void> {
  return checkFile(reader.layout.index(reader.id, disk), sha256, `index ${disk} of backup ${printBackupId(reader.id)}`)
}

export function checkTreeFile(reader: BackupReader, tree: string, sha256: string): Promise<void> {
  return checkFile(reader.layout.tree(reader.id, tree), sha256, `tree ${tree} of backup ${printBackupId(reader.id)}`)
}

async function checkFile(path: string, sha256: string, name: string): Promise<void> {
  const hash = createHash('sha256')
  try {
    for await (const part of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(part as Buffer)
  } catch (cause) {
    throw asFileFault(cause, path)
  }
  if (hash.digest('hex') !== sha256) throw new Fault('damaged', `${name} is damaged: its digest does not match`)
}

/** Runs a check and keeps the damage it finds. */
export async function noting(damages: string[], check: () => Promise<unknown>): Promise<void> {
  try {
    await check()
  } catch (cause) {
    if (!isFault(cause, 'damaged') && !isFault(cause, 'missing')) throw cause
    if (!damages.includes(cause.message)) damages.push(cause.message)
    if (damages.length > damagesMaximum) throwDamages(damages, 'it')
  }
}

/** One fault for all damage; the first stands first. */
export function throwDamages(damages: readonly string[], what: string): void {
  const [first] = damages
  if (first === undefined) return
  const more = damages.length === 1 ? '' : `; ${damages.length - 1} more in ${what}: ${damages.slice(1).join('; ')}`
  throw new Fault('damaged', `${first}${more}`, {
    remedy: 'Restore from another backup, and back up the guest again: damaged chunks are then stored anew.',
  })
}
