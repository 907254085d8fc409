/**
 * Removes backups that need not be kept: those of a storage, or of one guest there.
 *
 * Each removal is one act. What is gone does not come back when a later one fails; what is left then is pruned by the
 * next run.
 */
import { type MarkedBackup, markBackups } from '#backup/prune.ts'
import type { BackupService } from '#backup/service.ts'
import { type Clock, seconds } from '#base/clock.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { keepOptions, keepsAll, readRetention, type Retention } from '#base/retention.ts'
import { BackupCounts, type Counted } from '#cluster/backup-counts.ts'
import type { MachineFiles } from '#cluster/machine-files.ts'
import type { GuestKind } from '#guests/kind.ts'
import type { StorageService } from '#storage/service.ts'
import type { Store } from '#store/store.ts'
import { operation } from '#tasks/operation.ts'
import { giveBackSpace, marksTo } from './give-back.ts'
import { halfFor } from './halves.ts'

export type PruneBackups = {
  readonly storage: string
  readonly vmid?: number | undefined
  /** Which are kept; what the storage says when absent. */
  readonly keep?: string | undefined
  /** Only those of this kind of guest: an id may have been of both. */
  readonly type?: GuestKind | undefined
}

export interface PruneDeps {
  readonly storage: Pick<StorageService, 'get'>
  readonly backup: Pick<BackupService, 'list' | 'remove' | 'collect'>
  readonly machine: Pick<MachineFiles, 'timeZone'>
  readonly store: Store
  readonly clock: Clock
}

export interface PrunePlan {
  readonly retention: Retention
  readonly backups: readonly MarkedBackup[]
  /** What they are of. */
  readonly of: Counted
}

/** What is to be kept: by the wish, or else by what the storage says. @throws Fault `missing`, `invalid` */
export async function retentionOf(
  deps: Pick<PruneDeps, 'storage'>,
  { storage, keep }: Pick<PruneBackups, 'storage' | 'keep'>,
): Promise<Retention> {
  const { pruneBackups } = await deps.storage.get(storage)
  return readRetention(keep ?? pruneBackups ?? '')
}

/** What pruning would do now. @throws Fault `invalid`, `missing`, `unavailable` */
export async function planPruning(
  deps: Omit<PruneDeps, 'store' | 'clock'>,
  { storage, vmid, keep, type }: PruneBackups,
): Promise<PrunePlan> {
  const retention = await retentionOf(deps, { storage, keep })
  const backups = await deps.backup.list({ storage, vmid, type: type && halfFor(type).type })
  const byGuest = backups.toSorted((a, b) => a.vmid - b.vmid || a.ctime - b.ctime)
  const of: Counted = vmid === undefined ? `storage/${storage}` : `${byGuest[0]?.type ?? 'vm'}/${vmid}`
  return { retention, backups: markBackups(byGuest, retention, await deps.machine.timeZone()), of }
}

/** `keep-last=3, keep-daily=7` */
export function retentionText(retention: Retention): string {
  if (keepsAll(retention)) return 'keep-all=1'
  return keepOptions.flatMap((name) => (retention[name] ? [`${name}=${retention[name]}`] : [])).join(', ')
}

export interface Telling {
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
  readonly signal: AbortSignal
  readonly progress?: (phase: string, fraction?: number, bytes?: number) => void
}

/** Removes what the plan says. One that cannot be removed does not keep the others. @throws Fault `failed`, `aborted` */
export async function carryOut(
  deps: PruneDeps,
  { backups, of }: PrunePlan,
  { log, warn, signal, progress }: Telling,
): Promise<number> {
  const failures: string[] = []
  const going = backups.filter(({ mark }) => mark === 'remove')
  let removed = 0
  for (const [number, { volid }] of going.entries()) {
    progress?.('remove', number / going.length)
    if (signal.aborted) throw new Fault('aborted', 'interrupted')
    try {
      await deps.backup.remove(volid)
      log(`removed backup '${volid}'`)
      removed += 1
    } catch (fault) {
      // Somebody else removed or protected it meanwhile, or it is locked.
      if (!isFault(fault)) throw fault
      // Or that is for others to remove: whoever serves the datastore.
      if (fault.kind === 'missing' || fault.kind === 'conflict' || fault.kind === 'denied')
        log(`backup '${volid}' stays as it is: ${fault.message}`)
      else failures.push(`${volid}: ${messageOf(fault)}`)
    }
  }
  for (const failure of failures) warn(`not removed: ${failure}`)
  if (failures.length > 0) throw new Fault('failed', `${failures.length} backups could not be removed: ${failures[0]}`)
  const ended = seconds(deps.clock)
  await new BackupCounts(deps.store).pruned(of, { ended, kept: backups.length - removed, removed })
  return removed
}

export const pruneBackups = operation<PruneBackups, PruneDeps>('prunebackups', {
  id: ({ storage, vmid }) => (vmid === undefined ? storage : `${vmid}@${storage}`),
}).step('backups', {
  async do({ params, deps, log, warn, progress, signal }) {
    const plan = await planPruning(deps, params)
    log(`keep backups by ${retentionText(plan.retention)}`)
    for (const { volid, mark } of plan.backups) log(`${mark.padEnd(9)} ${volid}`)
    const removed = await carryOut(deps, plan, { log, warn, signal, progress })
    const watching = { signal, onProgress: marksTo(progress) }
    if (removed > 0) await giveBackSpace(deps.backup, params.storage, log, watching)
    log(`${removed} of ${plan.backups.length} backups removed`)
  },
  // A removed restore point does not come back: its removal is one act, and what may be left are its remains.
  undo: ({ params, deps, log }) => giveBackSpace(deps.backup, params.storage, log),
})
