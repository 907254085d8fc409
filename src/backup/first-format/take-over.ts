/**
 * Takes the backups of a datastore of the first format over into an encrypted one: each with its name, moment, notes and
 * protection, disks, trees and files. Whatever is read is proven by its digest on the way, and read again afterwards
 * where it is now. The old datastore is read only.
 *
 * Cut off anywhere, the next run goes on: a backup that is there is whole.
 */
import { Fault, isFault } from '#base/fault.ts'
import { type BackupId, printBackupId } from '#datastore/backup-id.ts'
import type { OpenDatastore } from '#datastore/datastore.ts'
import { goOn } from '#datastore/go-on.ts'
import type { Marks as NewMarks } from '#datastore/points/marks.ts'
import type { Facts } from '#datastore/points/manifest.ts'
import { verifyBackup } from '#datastore/verify/verify.ts'
import type { FirstDatastore } from './datastore.ts'
import { TreeDigest } from './digest.ts'
import { chunkBytes } from './format.ts'
import { treesOf } from './manifest.ts'
import type { Marks } from './marks.ts'
import type { BackupReader } from './reader.ts'

const [notesMaximum, damageMaximum] = [8_192, 1_024]

export interface TakeOverOptions {
  readonly log?: ((line: string) => void) | undefined
  /** Share of the backups that are done, 0 to 1. */
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

export interface TakenOver {
  readonly taken: number
  /** They were there already. */
  readonly before: number
  /** What cannot be read, and why: it stays where it is. */
  readonly damaged: readonly string[]
}

/** @throws Fault `exhausted`, `aborted` */
export async function takeOver(
  old: FirstDatastore,
  open: OpenDatastore,
  { log = () => {}, onProgress, signal }: TakeOverOptions = {},
): Promise<TakenOver> {
  const { datastore } = open
  if (datastore.facts.chunkBytes !== chunkBytes) {
    throw new Fault('invalid', `'${datastore.place.label}' cuts disks into ${datastore.facts.chunkBytes} bytes`, {
      remedy: `Make a datastore with chunks of ${chunkBytes} bytes, as the old one has.`,
    })
  }
  const there = new Set((await datastore.points()).filter(({ namespace }) => namespace === '').map(printBackupId))
  const ids = await old.ids()
  const damaged: string[] = []
  let [taken, before] = [0, 0]
  for (const [number, id] of ids.entries()) {
    goOn(signal)
    onProgress?.(number / ids.length)
    if (there.has(printBackupId(id))) before += 1
    else {
      try {
        await takeOne(old, open, id)
        log(`taken over: ${printBackupId(id)}`)
        taken += 1
      } catch (fault) {
        if (!isFault(fault, 'damaged') && !isFault(fault, 'missing')) throw fault
        log(`not taken over: ${printBackupId(id)}: ${fault.message}`)
        damaged.push(`${printBackupId(id)}: ${fault.message}`)
      }
    }
  }
  onProgress?.(1)
  return { taken, before, damaged }
}

/** @throws Fault `damaged` naming what could not be taken over */
export function requireAll({ damaged }: TakenOver): void {
  if (damaged.length === 0) return
  throw new Fault('damaged', `${damaged.length} backups cannot be read: ${damaged.join('; ')}`, {
    remedy: 'The others are taken over. What is damaged stays where it was.',
  })
}

async function takeOne(old: FirstDatastore, open: OpenDatastore, id: BackupId): Promise<void> {
  await using reader = await old.open(id)
  const { manifest } = reader
  const marks = await old.marks(id)
  const point = { namespace: '', ...id }
  await using writer = await open.begin(point)
  for (const { name } of manifest.disks) {
    await requireDigest(reader, name)
    await writer.addDisk(name, reader.disk(name))
  }
  for (const facts of treesOf(manifest)) {
    const { name, entries, files, dataBytes, reusedFiles, highestUid, highestGid, ids } = facts
    const kept = { name, entries, files, dataBytes, reusedFiles, highestUid, highestGid, ids }
    await writer.copyTree(kept, reader.catalogue(name))
  }
  for (const { name } of manifest.files) await writer.addFile(name, await reader.file(name))
  await writer.commit({
    facts: manifest.facts as Facts,
    pointInTimeMs: Date.parse(manifest.pointInTime),
    finished: manifest.finished,
    marks: newMarks(marks),
  })
  await verifyBackup(open, point)
}

/** Each chunk is proven by its own digest; that these are the chunks of the disk, by the disk's. */
async function requireDigest(reader: BackupReader, name: string): Promise<void> {
  const disk = reader.disk(name)
  const digest = new TreeDigest(disk.sizeBytes)
  for await (const { position, digest: chunk } of disk.entries()) digest.add(position, chunk)
  if (digest.end() === disk.facts.digest) return
  throw new Fault('damaged', `index ${name} of backup ${printBackupId(reader.id)} is damaged: it is of another disk`)
}

function newMarks({ notes, protected: isProtected, verified, damage }: Marks): NewMarks {
  return {
    notes: notes?.slice(0, notesMaximum),
    protected: isProtected,
    verified,
    damage: damage?.slice(0, damageMaximum),
  }
}
