/**
 * The guests of a backup job, one after the other. One that fails does not keep the others from being backed up;
 * in the end the job says that there were errors, and its log which. Neither does one that cannot be put back into its
 * state: its lock stays, and that is tried again before its next backup, and when the task is undone.
 */
import { settled } from '#base/all-done.ts'
import { seconds } from '#base/clock.ts'
import { asOne, failedTwice, Fault, type FaultKind, isFault, messageOf } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { keepsAll } from '#base/retention.ts'
import { BackupCounts } from '#cluster/backup-counts.ts'
import { BackupOptions, defaultAtOnce } from '#cluster/backup-options.ts'
import { ioPriority } from '#host/programs/io-priority.ts'
import { acquireLocks, heldLocks, releaseLocks } from '#tasks/lock.ts'
import type { StepContext } from '#tasks/operation.ts'
import { giveBackSpace, marksTo } from './give-back.ts'
import { type Hook, type HookAbout, hookOf } from './hook-script.ts'
import { reportChange } from './change-report.ts'
import { clockTime, commandOf, wallTime } from './job-log.ts'
import type { GuestOutcome, Notices } from './job-outcome.ts'
import type { StopPhase } from './half.ts'
import { halfFor } from './halves.ts'
import { backUpGuest } from './one-guest.ts'
import { requireProtectable, unlimited } from './protect.ts'
import { carryOut, planPruning, retentionOf, retentionText, type Telling } from './prune.ts'
import { reportEnd, reportJob } from './report.ts'
import type { BackupGuests, BackupRunDeps } from './run.ts'
import { ownTurn } from './turn.ts'

export interface ChosenGuests {
  readonly vmids: readonly number[]
  readonly running: readonly number[]
}

export type JobContext = Pick<
  StepContext<BackupGuests, BackupRunDeps, unknown>,
  'params' | 'deps' | 'log' | 'warn' | 'progress' | 'signal' | 'task'
> & {
  readonly chosen: ChosenGuests
  /** Makes true that nobody backs the guest up. */
  readonly restoreState: (vmid: number) => Promise<void>
}

type Outcome = Notices & { readonly vmid: number; readonly seconds: number } & (
    | { readonly volid: string; readonly pruned: number }
    | { readonly failure: unknown }
  )

interface Says {
  readonly info: (line: string) => void
  readonly error: (line: string) => void
}

/** Volume ids of the backups. @throws Fault when one failed */
export async function backUpEveryGuest(context: JobContext): Promise<string[]> {
  const { params, deps, chosen, signal } = context
  const info = (line: string) => context.log(`INFO: ${line}`)
  const says: Says = { info, error: (line) => context.log(`ERROR: ${line}`) }
  const hook = hookOf(params.script, { host: deps.host, storage: params.storage, log: info, signal })
  info(`starting new backup job: ${commandOf(params)}`)
  for (const line of params.remarks ?? []) info(line)
  using _rank = params.ioPriority === undefined ? undefined : ioPriority(params.ioPriority)
  const outcomes: Outcome[] = []
  try {
    await using _turn = await takeTurn(context, info)
    await hook.job('job-init')
    await hook.job('job-start')
    for (const [number, vmid] of chosen.vmids.entries()) {
      if (signal.aborted) throw new Fault('aborted', 'interrupted')
      const progress = (phase: string, fraction = 0, bytes?: number) =>
        context.progress(`VM ${vmid}: ${phase}`, (number + fraction) / chosen.vmids.length, bytes)
      outcomes.push(await oneGuest(vmid, { ...context, progress }, hook, says))
    }
    await tryAgain(context, outcomes, (vmid) => oneGuest(vmid, context, hook, says))
    await hook.job('job-end')
  } catch (cause) {
    await quietly(says, () => hook.job('job-abort'))
    await reportEnd(context, cause, outcomes.map(toldOf))
    throw cause
  }
  return concluded(context, outcomes, says)
}

async function takeTurn({ params, deps, signal, task }: JobContext, info: (line: string) => void) {
  const { atOnce = defaultAtOnce } = await new BackupOptions(deps.store).get()
  return ownTurn(deps.store, task.upid, {
    atOnce,
    timeoutMs: lockWaitMs(params),
    clock: deps.clock,
    signal,
    onWait: (upids) => info(`${atOnce} at once back up on this node; waiting for ${upids.join(', ')}`),
  })
}

const lockWaitMs = ({ lockWait = 180 }: BackupGuests) => lockWait * 60_000

/** Nobody watches a job at night: what may have passed meanwhile is tried once more, when all others had their turn. */
async function tryAgain(
  { params, deps, log, signal }: JobContext,
  outcomes: Outcome[],
  backUp: (vmid: number) => Promise<Outcome>,
): Promise<void> {
  if (params.jobId === undefined) return
  const failed = outcomes.filter((one) => 'failure' in one && isFault(one.failure) && passing.has(one.failure.kind))
  if (failed.length === 0) return
  for (const one of failed) {
    if ('failure' in one) log(`INFO: VM ${one.vmid} is tried again in ${againMs / 1000} s: ${messageOf(one.failure)}`)
  }
  await new BackupCounts(deps.store).retried(params.storage, failed.length, seconds(deps.clock))
  await deps.clock.sleep(againMs, signal)
  for (const one of failed) {
    if (signal.aborted) throw new Fault('aborted', 'interrupted')
    const again = await backUp(one.vmid)
    outcomes[outcomes.indexOf(one)] = { ...again, alarms: [...(one.alarms ?? []), ...(again.alarms ?? [])] }
  }
}

const againMs = 60_000
/** Nothing that stays as it is: a full storage, a guest that is gone, what is not allowed. */
const passing: ReadonlySet<FaultKind> = new Set(['unavailable', 'timeout', 'conflict', 'failed'])

async function oneGuest(vmid: number, context: JobContext, hook: Hook, says: Says): Promise<Outcome> {
  const { params, deps, signal, task } = context
  const { info } = says
  const startedMs = deps.clock.monotonic()
  const half = halfFor(await deps.guests.kindOf(asVmid(vmid)))
  info(`Starting Backup of VM ${vmid} (${half.kind})`)
  info(`Backup started at ${wallTime(deps.clock.now())}`)
  const took = () => (deps.clock.monotonic() - startedMs) / 1000
  const isOurs = (holder: string, name: string) => holder === task.upid && name === `guest/${vmid}`
  const letGo = () => releaseLocks(deps.store, isOurs)
  const putBack = async () => {
    await context.restoreState(vmid)
    await letGo()
  }
  const about = { mode: params.mode, vmid, type: half.kind, name: `VM ${vmid}` }
  const noticed: { alarms: string[]; hint?: string } = { alarms: [] }
  const alarm = (text: string) => {
    context.warn(`ALARM: ${text}`)
    noticed.alarms.push(text)
  }
  const hint = (text: string) => void (noticed.hint = noticed.hint === undefined ? text : `${noticed.hint}; ${text}`)
  let backup: string | undefined
  try {
    if (params.protected) await requireProtectable(deps, { storage: params.storage, vmid, type: half.type }, unlimited)
    if ((await heldLocks(deps.store)).some(({ upid, name }) => isOurs(upid, name))) await putBack()
    await acquireLocks(deps.store, [`guest/${vmid}`], task.upid, {
      signal,
      clock: deps.clock,
      timeoutMs: lockWaitMs(params),
      onWait: ({ upid }) => info(`VM ${vmid} is held by task ${upid}; waiting`),
    })
    about.name = half.nameOf((await deps.guests.config(asVmid(vmid), half.kind)).options, asVmid(vmid))
    await hook.guest('backup-start', about)
    const onPhase = (phase: StopPhase) => hook.guest(phase, about)
    const { volid, change } = await backUpGuest(vmid, {
      ...context,
      upid: task.upid,
      log: info,
      alarm,
      hint,
      how: params,
      onPhase,
    })
    backup = volid
    await hook.guest('backup-end', { ...about, target: volid })
    const toReport = { backup: deps.backup, log: info, warn: context.warn }
    const ofGuest = { storage: params.storage, vmid, type: half.type }
    const suspicion = await reportChange(toReport, ofGuest, { volid, change })
    if (suspicion !== undefined) hint(suspicion)
    const pruned = await pruneAfter(about, params, deps, { log: info, warn: context.warn, signal })
    await letGo()
    info(`Finished Backup of VM ${vmid} (${clockTime(deps.clock.monotonic() - startedMs)})`)
    info(`Backup finished at ${wallTime(deps.clock.now())}`)
    await quietly(says, () => hook.guest('log-end', { ...about, target: volid }))
    return { vmid, seconds: took(), volid, pruned, ...noticed }
  } catch (thrown) {
    const failure = asOne(thrown)
    // What is to be put right then is the undo's, which finds the guest by the lock on it.
    if (signal.aborted) throw failure
    const what = backup === undefined ? `Backup of VM ${vmid}` : `Backup of VM ${vmid} is there; what follows it`
    says.error(`${what} failed - ${messageOf(failure)}`)
    if (isFault(failure) && failure.remedy !== undefined) info(failure.remedy)
    const left = await settled(putBack())
    if (left.status === 'rejected') says.error(`VM ${vmid} is not as it was before - ${messageOf(left.reason)}`)
    info(`Failed at ${wallTime(deps.clock.now())}`)
    await quietly(says, () => hook.guest('backup-abort', about))
    await quietly(says, () => hook.guest('log-end', about))
    const whole = left.status === 'rejected' ? failedTwice(failure, left.reason) : failure
    return { vmid, seconds: took(), failure: whole, ...noticed }
  }
}

async function concluded(context: JobContext, outcomes: readonly Outcome[], { info }: Says): Promise<string[]> {
  const { params, deps } = context
  const failures = outcomes.filter((one) => 'failure' in one)
  const isSpaceFree = outcomes.some((one) => 'failure' in one || one.pruned > 0)
  const watching = { onProgress: marksTo(context.progress) }
  if (isSpaceFree) await giveBackSpace(deps.backup, params.storage, info, watching)
  const isFailed = failures.length > 0
  info(`Backup job finished ${isFailed ? 'with errors' : 'successfully'}`)
  await reportJob(context, { guests: outcomes.map(toldOf), isFailed })
  const [only] = failures
  if (only && outcomes.length === 1) throw only.failure
  if (isFailed) {
    const which = failures.map((one) => `VM ${one.vmid}: ${messageOf(one.failure)}`).join('; ')
    // The words clients know; what happened is the remedy's to say.
    throw new Fault('failed', 'job errors', {
      remedy: `${failures.length} of ${outcomes.length} backups failed: ${which}`,
    })
  }
  return outcomes.flatMap((one) => ('volid' in one ? [one.volid] : []))
}

function toldOf(one: Outcome): GuestOutcome {
  const { vmid, seconds, alarms, hint } = one
  const verdict = 'volid' in one ? { volid: one.volid } : { reason: messageOf(one.failure) }
  return { vmid, seconds, ...verdict, ...(alarms && { alarms }), ...(hint !== undefined && { hint }) }
}

/** For what has nothing to decide any more. */
async function quietly({ info }: Says, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (cause) {
    if (!isFault(cause)) throw cause
    info(`the hook script failed: ${cause.message}`)
  }
}

/** The new backup is there whatever becomes of the old ones, so a failure here is a warning. @returns how many went */
async function pruneAfter(
  { vmid, type }: Pick<HookAbout, 'vmid' | 'type'>,
  params: BackupGuests,
  deps: BackupRunDeps,
  telling: Telling,
): Promise<number> {
  if (params.prunes === false) return 0
  try {
    const { storage, keep } = params
    // All backups are looked at only where one may have to go.
    if (keepsAll(await retentionOf(deps, { storage, keep }))) return 0
    const plan = await planPruning(deps, { storage, vmid, type, keep })
    telling.log(`prune older backups by ${retentionText(plan.retention)}`)
    const removed = await carryOut(deps, plan, telling)
    telling.log(`pruned ${removed} backups of VM ${vmid}`)
    return removed
  } catch (fault) {
    if (telling.signal.aborted) throw fault
    telling.warn(`older backups of VM ${vmid} are not pruned: ${messageOf(fault)}`)
    return 0
  }
}
