/**
 * What a backup may build upon when it is told what changed since an earlier one: the map of the disk as it was then.
 *
 * Chunks are taken over by their ids, without being looked for. They stay, because the earlier backup needs them: it was
 * there when this writer's lease was, and what is condemned later waits for the writer. What was condemned before might
 * go, so nothing is built upon that.
 */
import { Fault } from '#base/fault.ts'
import { diskBefore } from './add-whole.ts'
import type { OpenDatastore } from '../datastore.ts'
import { basesOf, type DiskMap, isZeroId } from '../maps/disk-map.ts'
import { shortIdBytes } from '../format.ts'
import type { ManifestDisk } from '../points/manifest.ts'
import { printPoint, type RestorePoint } from '../point.ts'

/** What a source's extents call unchanged is so since then. */
export interface Since {
  readonly point: RestorePoint
  /** Its name in that backup. */
  readonly disk: string
  /** Of the record of changes, as that backup remembers it. */
  readonly record: string
}

export interface Base {
  readonly since: Since
  readonly map: DiskMap
  /** Absent where there are none, or none that may be taken over. */
  readonly prints: DiskMap | undefined
  readonly disk: ManifestDisk
}

/** @returns why the disk has to be read whole, where it has */
export async function baseOf(
  open: OpenDatastore,
  since: Since,
  sizeBytes: number,
): Promise<Base | { readonly reason: string }> {
  try {
    return await find(open, since, sizeBytes)
  } catch (fault) {
    if (!(fault instanceof Fault)) throw fault
    return { reason: fault.message }
  }
}

async function find(open: OpenDatastore, since: Since, sizeBytes: number): Promise<Base | { readonly reason: string }> {
  const { point, disk: name, record } = since
  const { datastore, index, keyring } = open
  const backup = `backup ${printPoint(point)}`
  // Backups mend what is damaged, if they read it.
  if (index.hasSuspects) return { reason: 'damage was seen in the datastore' }
  const disk = (await open.body(point)).disks.find((one) => one.name === name)
  if (!disk) return { reason: `${backup} has no disk ${name}` }
  if (disk.record !== record) return { reason: `the record of changes is not that of ${backup}` }
  if (disk.sizeBytes !== sizeBytes) return { reason: `the disk had another size in ${backup}` }
  if (await datastore.isMarkedDamaged(point)) return { reason: `${backup} is damaged` }
  const { map, prints } = await diskBefore(open, disk)
  if (keyring.digestOf(sizeBytes, map.root).toString('hex') !== disk.digest) return { reason: `${backup} is damaged` }
  if (await isCondemned(open, map, true)) return { reason: `chunks of ${backup} have been condemned` }
  const arePrintsSafe = prints && !(await isCondemned(open, prints, false))
  return { since, map, prints: arePrintsSafe ? prints : undefined, disk }
}

async function isCondemned({ index, chunks }: OpenDatastore, map: DiskMap, isOfChunks: boolean): Promise<boolean> {
  if (!index.hasCondemned) return false
  for (let piece = 0; piece < map.pieces; piece += 1) {
    const id = map.pieceId(piece)
    if (isZeroId(id)) continue
    if (index.isCondemned(id)) return true
    for await (const base of basesOf(chunks, id)) if (index.isCondemned(base)) return true
    if (!isOfChunks) continue
    const { ids } = await map.piece(piece)
    for (let at = 0; at < ids.length; at += shortIdBytes) {
      if (index.isCondemned(ids.subarray(at, at + shortIdBytes))) return true
    }
  }
  return false
}
