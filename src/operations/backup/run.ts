/**
 * Backs up one guest or many (`vzdump`). A guest that fails does not keep the others from being backed
 * up, but the task fails in the end and says which. What was committed stays, whatever comes after.
 *
 * Each guest's lock is taken when its turn comes and given back after it, so a long list does not hold
 * guests that wait. Undo looks for guests this task still holds: there a worker was killed in the middle.
 */
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { keepsAll } from '#base/retention.ts'
import { operation } from '#tasks/operation.ts'
import { acquireLocks, heldLocks, releaseLocks } from '#tasks/lock.ts'
import { giveBackSpace } from './give-back.ts'
import { leaveGuest } from './guest-source.ts'
import { type BackupDeps, type BackupHow, backUpGuest } from './one-guest.ts'
import { requireProtectable, unlimited } from './protect.ts'
import { carryOut, planPruning, type PruneDeps, retentionText, type Telling } from './prune.ts'

export type BackupGuests = BackupHow & {
  /** All of them where `all` is set. */
  readonly vmids: readonly number[]
  readonly all?: boolean | undefined
  /** Left out of `all`. */
  readonly exclude?: readonly number[] | undefined
  /** Minutes to wait for a guest's lock. */
  readonly lockWait?: number | undefined
  /** Which backups of each guest are kept once it has a new one; what the storage says when absent. */
  readonly keep?: string | undefined
  /** False: none is removed. */
  readonly prunes?: boolean | undefined
}

export type BackupRunDeps = BackupDeps & Pick<PruneDeps, 'machine'>

const lockOf = (vmid: number) => `guest/${vmid}`

export const backupGuests = operation<BackupGuests, BackupRunDeps>('vzdump', {
  id: ({ vmids, all }) => (all || vmids.length !== 1 ? '' : (vmids[0] ?? '')),
})
  .step('guests', {
    async do({ params, deps, log }) {
      await deps.storage.datastorePath(params.storage) // Says now, and not per guest, that it cannot hold backups.
      const vmids = await chosen(params, deps)
      if (vmids.length === 0) throw new Fault('missing', 'there is no guest to back up')
      if (vmids.length > 1) log(`${vmids.length} guests: ${vmids.join(', ')}`)
      const running: number[] = []
      for (const vmid of vmids) if (await isRunning(deps, vmid)) running.push(vmid)
      return { vmids, running }
    },
  })
  .step('backups', {
    async do({ params, deps, done, log, warn, progress, signal, task }) {
      const volumes: string[] = []
      const failures: string[] = []
      for (const [number, vmid] of done.guests.vmids.entries()) {
        if (signal.aborted) throw new Fault('aborted', 'interrupted')
        const part = (phase: string, fraction = 0) =>
          progress(`VM ${vmid}: ${phase}`, (number + fraction) / done.guests.vmids.length)
        try {
          if (params.protected) await requireProtectable(deps, { storage: params.storage, vmid }, unlimited)
          await acquireLocks(deps.store, [lockOf(vmid)], task.upid, {
            signal,
            clock: deps.clock,
            timeoutMs: (params.lockWait ?? 180) * 60_000,
            onWait: ({ upid }) => log(`VM ${vmid} is held by task ${upid}; waiting`),
          })
          volumes.push(await backUpGuest(vmid, { deps, how: params, log, warn, progress: part, signal }))
          await pruneAfter(vmid, params, deps, { log, warn, signal })
          await releaseLocks(deps.store, (holder) => holder === task.upid)
        } catch (cause) {
          if (signal.aborted || done.guests.vmids.length === 1) throw cause
          failures.push(`VM ${vmid}: ${messageOf(cause)}`)
          log(`ERROR: backup of VM ${vmid} failed: ${messageOf(cause)}`)
          if (isFault(cause) && cause.remedy !== undefined) log(cause.remedy)
          await restoreGuestState({ params, deps, running: done.guests.running, vmid })
          await releaseLocks(deps.store, (holder) => holder === task.upid)
        }
      }
      if (failures.length > 0) {
        throw new Fault(
          'failed',
          `${failures.length} of ${done.guests.vmids.length} backups failed: ${failures.join('; ')}`,
        )
      }
      return volumes
    },
    async undo({ params, deps, done, task, log }) {
      for (const { name, upid } of await heldLocks(deps.store)) {
        const vmid = Number(/^guest\/(\d+)$/.exec(name)?.[1])
        if (upid !== task.upid || !done.guests?.vmids.includes(vmid)) continue
        await restoreGuestState({ params, deps, running: done.guests.running, vmid })
      }
      // A fleecing image may have been half made.
      await deps.storage.sweep()
      await giveBackSpace(deps.backup, params.storage, log)
    },
  })

/** The new backup is there whatever becomes of the old ones, so a failure here is a warning. */
async function pruneAfter(vmid: number, params: BackupGuests, deps: BackupRunDeps, telling: Telling): Promise<void> {
  if (params.prunes === false) return
  try {
    const plan = await planPruning(deps, { storage: params.storage, vmid, keep: params.keep })
    if (keepsAll(plan.retention)) return
    telling.log(`prune older backups by ${retentionText(plan.retention)}`)
    const removed = await carryOut(deps, plan, telling)
    telling.log(`pruned ${removed} backups of VM ${vmid}`)
  } catch (fault) {
    if (telling.signal.aborted) throw fault
    telling.warn(`older backups of VM ${vmid} are not pruned: ${messageOf(fault)}`)
  }
}

/** Makes true that nobody backs the guest up: nothing of ours in it, running if it ran and we stopped it. */
async function restoreGuestState(about: {
  readonly params: BackupGuests
  readonly deps: BackupDeps
  readonly running: readonly number[]
  readonly vmid: number
}): Promise<void> {
  const { params, deps, running, vmid } = about
  const guest = asVmid(vmid)
  if (!(await deps.guests.exists(guest))) return
  await leaveGuest(deps, guest)
  const isStoppedByUs = params.mode === 'stop' && running.includes(vmid)
  if (isStoppedByUs && !(await deps.guests.isRunning(guest))) await deps.guests.start(guest)
}

async function chosen({ vmids, all, exclude = [] }: BackupGuests, deps: BackupDeps): Promise<number[]> {
  if (!all) {
    for (const vmid of vmids) await deps.guests.config(asVmid(vmid)) // Missing ones are named before any work.
    return [...new Set(vmids)]
  }
  const guests = await deps.guests.list()
  return guests.map(({ vmid }) => Number(vmid)).filter((vmid) => !exclude.includes(vmid))
}

async function isRunning(deps: BackupDeps, vmid: number): Promise<boolean> {
  return deps.guests.isRunning(asVmid(vmid))
}
