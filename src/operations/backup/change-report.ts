/** What is done about a backup that changed more than its guest usually does: say so, and keep what was before. */
import { type ChangeHint, changeHint, changeOf, historyIn, historyLeast } from '#backup/change-hint.ts'
import { carriedOn, type DatedFigures, figuresFrom } from '#backup/earlier-changes.ts'
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

/** For the manifest of a backup that is begun: how those before it changed. Never fails: the backup can do without. */
export async function changesBefore(
  { backup, log }: Pick<ChangeReport, 'log'> & { readonly backup: Pick<BackupService, 'list'> },
  { storage, vmid, type }: OfGuest,
): Promise<readonly DatedFigures[]> {
  try {
    const manifests = (await backup.list({ storage, vmid, type })).flatMap(({ manifest }) => manifest ?? [])
    return carriedOn(figuresFrom(manifests, defaultChunkBytes))
  } catch (fault) {
    if (!isFault(fault)) throw fault
    log(`how earlier backups of guest ${vmid} changed is not known: ${messageOf(fault)}`)
    return []
  }
}

/**
 * Looks at the guest's newest backup. Where it is suspicious, those before it are protected until somebody lifts that, so
 * that no retention takes what may be needed; and the newest says why. Never fails: the backup is there.
 * @returns why it is
 */
export async function reportChange(
  { backup, log, warn }: ChangeReport,
  { storage, vmid, type }: OfGuest,
): Promise<string | undefined> {
  let text: string | undefined
  try {
    const all = await backup.list({ storage, vmid, type })
    const known = all.flatMap(({ volid, manifest }) => (manifest ? [{ volid, manifest }] : []))
    const newest = known.at(-1)
    const changes = figuresFrom(
      known.map(({ manifest }) => manifest),
      defaultChunkBytes,
    ).map(changeOf)
    const [now, earlier] = [changes.at(-1), changes.slice(0, -1)]
    const { length } = historyIn(earlier)
    if (length < historyLeast) {
      log(`whether it changed more than usual is told when ${historyLeast} earlier backups are known (now ${length})`)
    }
    const hint = now && changeHint(now, earlier)
    if (!newest || !hint) return undefined
    text = textOf(hint)
    warn(text)
    await backup.annotate(newest.volid, { hint: text })
    const kept = await protectAll(
      backup,
      all.filter(({ volid, protected: isKept }) => volid !== newest.volid && isKept !== true).map(({ volid }) => volid),
    )
    if (kept > 0) warn(`${kept} older backups of guest ${vmid} are protected now, until somebody lifts that`)
  } catch (fault) {
    if (!isFault(fault)) throw fault
    const what = text === undefined ? `whether guest ${vmid} changed more than usual is not known` : 'that is not kept'
    warn(`${what}: ${messageOf(fault)}`)
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
