/**
 * Backs up one guest or many (`vzdump`). A guest that fails does not keep the others from being backed
 * up, but the task fails in the end and says which. What was committed stays, whatever comes after.
 *
 * Each guest's lock is taken when its turn comes and given back after it, so a long list does not hold
 * guests that wait. Undo looks for guests this task still holds: there a worker was killed in the middle.
 */
import { settled } from '#base/all-done.ts'
import { failedTwice, Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { operation } from '#tasks/operation.ts'
import { heldLocks } from '#tasks/lock.ts'
import { backUpEveryGuest } from './every-guest.ts'
import { giveBackSpace } from './give-back.ts'
import type { BackupDeps, BackupHow } from './half.ts'
import { halfFor } from './halves.ts'
import type { PruneDeps } from './prune.ts'
import { type Notify, reportDeath, reportEnd } from './report.ts'

export type BackupGuests = BackupHow & {
  /** All of them where `all` is set. */
  readonly vmids: readonly number[]
  readonly all?: boolean | undefined
  /** Left out of `all`. */
  readonly exclude?: readonly number[] | undefined
  /** Minutes to wait for a guest's lock. */
  readonly lockWait?: number | undefined
  /** Backup job it is a run of. */
  readonly jobId?: string | undefined
  /** Absolute path of a program of root's that hears of everything; root alone may name one. */
  readonly script?: string | undefined
  /** As of `ionice`: 0 to 7, or 8 for idle. */
  readonly ioPriority?: number | undefined
  readonly notify?: Notify | undefined
  /** What was asked for and has no effect, for the log. */
  readonly remarks?: readonly string[] | undefined
  /** Which backups of each guest are kept once it has a new one; what the storage says when absent. */
  readonly keep?: string | undefined
  /** False: none is removed. */
  readonly prunes?: boolean | undefined
}

export type BackupRunDeps = BackupDeps & Pick<PruneDeps, 'machine'>

export const backupGuests = operation<BackupGuests, BackupRunDeps>('vzdump', {
  id: ({ vmids, all }) => (all || vmids.length !== 1 ? '' : (vmids[0] ?? '')),
})
  .step('guests', {
    async do(context) {
      const { params, deps } = context
      try {
        await deps.backup.requireReady(params.storage) // Says now, and not per guest, that it cannot hold backups.
        const vmids = await chosen(params, deps)
        if (vmids.length === 0) throw new Fault('missing', 'there is no guest to back up')
        const running: number[] = []
        for (const vmid of vmids) if (await isRunning(deps, vmid)) running.push(vmid)
        return { vmids, running }
      } catch (cause) {
        await reportEnd(context, cause)
        throw cause
      }
    },
  })
  .step('backups', {
    do: (context) => {
      const { params, deps, done } = context
      const restoreState = (vmid: number) =>
        restoreGuestState({ params, deps, upid: context.task.upid, running: done.guests.running, vmid })
      return backUpEveryGuest({ ...context, chosen: done.guests, restoreState })
    },
    async undo(context) {
      const { params, deps, done, task, log } = context
      const left: unknown[] = []
      for (const { name, upid } of await heldLocks(deps.store)) {
        const vmid = Number(/^guest\/(\d+)$/.exec(name)?.[1])
        if (upid !== task.upid || !done.guests?.vmids.includes(vmid)) continue
        const about = { params, deps, upid: task.upid, running: done.guests.running, vmid }
        const restored = await settled(restoreGuestState(about))
        if (restored.status === 'rejected') left.push(restored.reason)
      }
      // A fleecing image may have been half made.
      await deps.storage.sweep()
      await giveBackSpace(deps.backup, params.storage, log)
      await reportDeath(context)
      if (left.length > 0) throw left.reduce(failedTwice)
    },
  })

/** Makes true that nobody backs the guest up: nothing of ours in it, running if it ran and we stopped it. */
async function restoreGuestState(about: {
  readonly params: BackupGuests
  readonly deps: BackupDeps
  readonly upid: string
  readonly running: readonly number[]
  readonly vmid: number
}): Promise<void> {
  const { params, deps, upid, running, vmid } = about
  const guest = asVmid(vmid)
  if (!(await deps.guests.exists(guest))) return
  await halfFor(await deps.guests.kindOf(guest)).leave(deps, guest, upid)
  const isStoppedByUs = params.mode === 'stop' && running.includes(vmid)
  if (isStoppedByUs && !(await deps.guests.isRunning(guest))) await deps.guests.start(guest)
}

/** One that does not exist fails when its turn comes; the others are backed up. */
async function chosen({ vmids, all, exclude = [] }: BackupGuests, deps: BackupDeps): Promise<number[]> {
  if (!all) return [...new Set(vmids)]
  return (await deps.guests.list()).map(({ vmid }) => Number(vmid)).filter((vmid) => !exclude.includes(vmid))
}

async function isRunning(deps: BackupDeps, vmid: number): Promise<boolean> {
  return deps.guests.isRunning(asVmid(vmid))
}
