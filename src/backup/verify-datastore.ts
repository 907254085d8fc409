/**
 * Reads a whole datastore again, from both ends: every backup's own files, and every pack against its
 * name, also packs no backup refers to any more.
 */
import { readFile, stat } from 'node:fs/promises'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Digest } from '#base/ids.ts'
import { printBackupId } from '#datastore/backup-id.ts'
import { blobHeaderBytes, blobMaximumBytes, decodeBlob } from './blob.ts'
import type { Datastore } from './datastore.ts'
import { digestText } from './digest.ts'
import { packMaximumBytes } from './format.ts'
import { treesOf } from './manifest.ts'
import { checkPack, packHeaderBytes } from './pack.ts'
import { allPacks, packsOf } from './sweep.ts'
import { checkIndexFile, checkTreeFile, noting, throwDamages, type VerifyOptions } from './verify.ts'

export interface VerifiedDatastore {
  readonly backups: number
  readonly packs: number
}

/**
 * Checks every file of a datastore, also what no backup refers to any more.
 * @throws Fault `damaged` naming each damaged file or chunk, and the backups that are hit
 */
export async function verifyDatastore(datastore: Datastore, options: VerifyOptions = {}): Promise<VerifiedDatastore> {
  const { layout } = datastore
  const damages: string[] = []
  const users = new Map<Digest, string[]>()
  const infos = await datastore.list()
  for (const { id, damage } of infos) {
    if (damage !== undefined) damages.push(damage)
    if (damage !== undefined) continue
    await noting(damages, async () => {
      for (const pack of await packsOf(layout, id)) users.set(pack, [...(users.get(pack) ?? []), printBackupId(id)])
      await using reader = await datastore.open(id)
      for (const file of reader.manifest.files) await noting(damages, () => reader.file(file.name))
      for (const disk of reader.manifest.disks) {
        await noting(damages, () => checkIndexFile(reader, disk.name, disk.indexSha256))
      }
      for (const tree of treesOf(reader.manifest)) {
        await noting(damages, () => checkTreeFile(reader, tree.name, tree.treeSha256))
      }
    })
  }
  const total = users.size
  let packs = 0
  for await (const id of allPacks(layout)) {
    if (options.signal?.aborted) throw new Fault('aborted', 'the verification was interrupted')
    const found = await damagesOfPack(layout.pack(id), id)
    const hit = users.get(id) ?? []
    for (const damage of found) damages.push(hit.length > 0 ? `${damage} (hits ${hit.join(', ')})` : damage)
    users.delete(id)
    packs += 1
    options.onProgress?.(packs / Math.max(total, packs))
  }
  for (const [pack, hit] of users) damages.push(`pack ${pack} is gone (hits ${hit.join(', ')})`)
  throwDamages(damages, `datastore '${layout.root}'`)
  return { backups: infos.length, packs }
}

/** What is wrong with a pack, chunk by chunk where that can be told. */
async function damagesOfPack(path: string, id: Digest): Promise<string[]> {
  if ((await stat(path)).size > packMaximumBytes) return [`pack ${id} is damaged: it is too long`]
  const content = await readFile(path)
  if (digestText(content) === id) return []
  try {
    const damages: string[] = []
    for (const { digest, offset, length } of checkPack(content, id)) {
      await noting(damages, async () =>
        decodeBlob(content.subarray(offset, offset + length), digest, `pack ${id} at ${offset}`),
      )
    }
    return damages.length > 0 ? damages : [`pack ${id} is damaged: its digest does not match`]
  } catch (cause) {
    if (!isFault(cause, 'damaged')) throw cause
    return [cause.message, ...damagesWithoutTable(content, id)]
  }
}

/** Follows the blobs' own headers, as the table cannot be trusted. */
function damagesWithoutTable(content: Buffer, id: Digest): string[] {
  const damages: string[] = []
  let at = packHeaderBytes
  while (at + blobHeaderBytes <= content.length && content.toString('latin1', at, at + 4) === 'HKB1') {
    const length = blobHeaderBytes + content.readUInt32LE(at + 12)
    if (length > blobMaximumBytes || at + length > content.length) break
    try {
      decodeBlob(content.subarray(at, at + length), content.subarray(at + 16, at + 48), `pack ${id} at ${at}`)
    } catch (cause) {
      damages.push(messageOf(cause))
    }
    at += length
  }
  return damages
}
