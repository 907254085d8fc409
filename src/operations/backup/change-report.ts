/** What is done about a backup that changed more than its guest usually does: say so, and keep what was before. */
import {
  type ChangeFigures,
  type ChangeHint,
  changeHint,
  changeOf,
  historyIn,
  historyLeast,
} from '#backup/change-hint.ts'
import { type DatedFigures, figuresFrom } from '#backup/earlier-changes.ts'
import type { BackupService, ListedBackup } from '#backup/service.ts'
import { humanSize } from '#base/bytes.ts'
import { isFault, messageOf } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { defaultChunkBytes } from '#datastore/format.ts'
import type { HookAbout } from './hook-script.ts'

export interface ChangeReport {
  readonly backup: Pick<BackupService, 'list' | 'annotate'>
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
}

type OfGuest = Pick<HookAbout, 'vmid'> & { readonly storage: string; readonly type: ListedBackup['type'] }

/** What tells whether a backup changed more than its guest usually does. */
export interface BackupChange {
  /** Of the guest's backups when it was begun, oldest first. Nothing where that is not known, which was said then. */
  readonly before: readonly DatedFigures[] | undefined
  readonly now: ChangeFigures
}

/** How a guest's backups changed, before another is begun. Never fails: that one can do without. */
export async function changesBefore(
  { backup, warn }: Pick<ChangeReport, 'warn'> & { readonly backup: Pick<BackupService, 'list'> },
  { storage, vmid, type }: OfGuest,
): Promise<readonly DatedFigures[] | undefined> {
  try {
    const manifests = (await backup.list({ storage, vmid, type })).flatMap(({ manifest }) => manifest ?? [])
    return figuresFrom(manifests, defaultChunkBytes)
  } catch (fault) {
    if (!isFault(fault)) throw fault
    warn(`whether guest ${vmid} changed more than usual is not known: ${messageOf(fault)}`)
    return undefined
  }
}

/**
 * Looks at a guest's new backup. Where it is suspicious, those before it are protected until somebody lifts that, so
 * that no retention takes what may be needed; and the new one says why. Never fails: the backup is there.
 * @returns why it is
 */
export async function reportChange(
  { backup, log, warn }: ChangeReport,
  { storage, vmid, type }: OfGuest,
  { volid, change: { before, now } }: { readonly volid: VolumeId; readonly change: BackupChange },
): Promise<string | undefined> {
  if (!before) return undefined
  const earlier = before.map(changeOf)
  const { length } = historyIn(earlier)
  if (length < historyLeast) {
    log(`whether it changed more than usual is told when ${historyLeast} earlier backups are known (now ${length})`)
  }
  const hint = changeHint(changeOf(now), earlier)
  if (!hint) return undefined
  const text = textOf(hint)
  warn(text)
  try {
    await backup.annotate(volid, { hint: text })
    const unprotected = (await backup.list({ storage, vmid, type })).filter((one) => one.protected !== true)
    const older = unprotected.filter((one) => one.volid !== volid)
    const kept = await protectAll(
      backup,
      older.map((one) => one.volid),
    )
    if (kept > 0) warn(`${kept} older backups of guest ${vmid} are protected now, until somebody lifts that`)
  } catch (fault) {
    if (!isFault(fault)) throw fault
    warn(`that is not kept: ${messageOf(fault)}`)
  }
  return text
}

async function protectAll(backup: ChangeReport['backup'], volids: readonly VolumeId[]): Promise<number> {
  let kept = 0
  for (const volid of volids) {
    try {
      await backup.annotate(volid, { protected: true })
      kept += 1
    } catch (fault) {
      // Removed meanwhile: there is nothing to keep.
      if (!isFault(fault, 'missing')) throw fault
    }
  }
  return kept
}

function textOf({ newShare, usualShare, bytesPerNewChunk, usualBytes }: ChangeHint): string {
  const percent = (share: number) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`
  return (
    `much more is new than usual (${percent(newShare)} of the data, usually ${percent(usualShare)}), and it can hardly be compressed ` +
    `(${humanSize(Math.round(bytesPerNewChunk))} for each new chunk, usually ${humanSize(Math.round(usualBytes))}), as if it had been encrypted inside`
  )
}
