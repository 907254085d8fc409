/**
 * Records of what a guest writes from one backup to the next.
 *
 * A record's name says since which disk of which backup it has seen every write, so it is true by itself: what it does
 * not call changed is as that backup holds it, whatever became of other backups, of the node or of this program. None
 * is ever paused or handed on. A backup begins a new one before the moment it holds, is read by what the old one said
 * after that moment, and removes the old one once it is committed. In between both see every write: what is in both is
 * read twice, and nothing can be in none.
 *
 * A record that cannot be used only costs a look at the whole disk.
 */
import { isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import type { Since } from '#datastore/backup/built-upon.ts'
import { isSameGuest, parsePoint, printPoint, type RestorePoint } from '#datastore/point.ts'

/** A backup that is being made. */
export interface BackupInMaking {
  /** Id of the datastore. */
  readonly datastore: string
  readonly point: RestorePoint
  /** Backups of the same guest it may be built upon, oldest first. */
  readonly earlier: readonly RestorePoint[]
}

export interface FoundRecord {
  readonly name: string
  /** It has seen every write since it began. */
  readonly isWhole: boolean
}

export interface RecordPlan {
  /** Of the record to be begun. */
  readonly starts: string
  /** What the disk is read by; absent: all of it is read. */
  readonly since?: Since | undefined
  /** Why not, where there was a record. */
  readonly reason?: string | undefined
  /** Of no use to anybody. */
  readonly useless: readonly string[]
  /** Of no use once the backup is committed. */
  readonly replaced: readonly string[]
}

/** How one disk is read. */
export interface DiskRecord {
  readonly since?: Since | undefined
  /** Name of the record that began, where one could. */
  readonly record?: string | undefined
  readonly changedBytes?: number | undefined
  readonly reason?: string | undefined
}

const prefix = 'hakobune'
/** Of other datastores that the guest is backed up to as well; those of more are forgotten, the oldest first. */
const othersKept = 4

/** @param disk its name in the backup */
export function planRecords(
  found: readonly FoundRecord[],
  { datastore, point, earlier }: BackupInMaking,
  { disk, random }: { readonly disk: string; readonly random: Random },
): RecordPlan {
  const starts = printRecord({ datastore, point, disk }, random.uuid().slice(0, 8))
  const ours = found.filter(({ name }) => name.startsWith(`${prefix}/`))
  const records = ours.flatMap(({ name, isWhole }) => {
    const about = parseRecord(name)
    return about && isSameGuest(about.point, { ...point, namespace: about.point.namespace })
      ? [{ name, isWhole, ...about }]
      : []
  })
  const newestFirst = records.toSorted((a, b) => b.point.time - a.point.time)
  const others = newestFirst.filter((one) => one.datastore !== datastore && one.isWhole).slice(0, othersKept)
  const here = newestFirst.filter((one) => one.datastore === datastore && isSameGuest(one.point, point))
  const usable = here.filter(
    (one) => one.isWhole && earlier.some((known) => printPoint(known) === printPoint(one.point)),
  )
  const [best, ...older] = usable
  const kept = new Set([...others, ...usable].map(({ name }) => name))
  return {
    starts,
    since: best && { point: best.point, disk: best.disk, record: best.name },
    reason: best ? undefined : whyNot(here),
    useless: ours.flatMap(({ name }) => (kept.has(name) ? [] : [name])),
    replaced: [best, ...older].flatMap((one) => (one ? [one.name] : [])),
  }
}

function whyNot([newest]: readonly { readonly isWhole: boolean; readonly point: RestorePoint }[]): string | undefined {
  if (!newest) return undefined
  if (!newest.isWhole) return 'QEMU ended without storing it'
  return `backup ${printPoint(newest.point)}, which it began with, is not there`
}

interface RecordName {
  readonly datastore: string
  readonly point: RestorePoint
  readonly disk: string
}

function printRecord({ datastore, point, disk }: RecordName, nonce: string): string {
  return `${prefix}/${datastore}/${printPoint(point)}/${disk}/${nonce}`
}

function parseRecord(name: string): RecordName | undefined {
  const [, datastore = '', ...rest] = name.split('/')
  const disk = rest.at(-2) ?? ''
  try {
    return { datastore, point: parsePoint(rest.slice(0, -2).join('/')), disk }
  } catch (cause) {
    if (isFault(cause, 'invalid')) return undefined
    throw cause
  }
}
