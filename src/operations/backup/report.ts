/** Tells people and programs how a backup job went: by the node's own mail system, where it has one, and by webhook. */
import { seconds } from '#base/clock.ts'
import { isFault, messageOf } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { loaderFor } from '#base/on-demand.ts'
import { BackupCounts } from '#cluster/backup-counts.ts'
import { BackupOptions } from '#cluster/backup-options.ts'
import { sendMail } from '#host/web/sendmail.ts'
import type { StepContext, TaskFacts } from '#tasks/operation.ts'
import type { BackupGuests, BackupRunDeps } from './run.ts'
import { besides, type GuestOutcome, type JobOutcome, needsLook } from './job-outcome.ts'
import type * as webhooks from './webhook.ts'

const load = loaderFor(import.meta.url)

export interface Notify {
  readonly mailTo: readonly string[]
  readonly on: 'always' | 'failure'
}

type JobContext = Pick<StepContext<BackupGuests, BackupRunDeps, unknown>, 'params' | 'deps' | 'log' | 'signal' | 'task'>

/** Tasks of this process: whoever undoes one that is not among them tells of it instead. */
const reported = new Set<string>()

/** Nobody's backup fails because a mail does. */
export async function reportJob(
  context: JobContext,
  result: Pick<JobOutcome, 'guests' | 'isFailed' | 'reason'>,
): Promise<void> {
  const { params, deps, task } = context
  reported.add(task.upid)
  const { jobId: job, storage, notify } = params
  const outcome = { job, storage, endedMs: deps.clock.now(), ...result }
  await tell({ ...context, notify }, outcome)
  await countFailures(context, result)
}

/** For metrics. A job that ended before its end counts as one backup of its storage that failed. */
async function countFailures(
  { params: { storage }, deps, log }: JobContext,
  { guests, reason }: Pick<JobOutcome, 'guests' | 'reason'>,
): Promise<void> {
  const failed = guests.filter((guest) => guest.reason !== undefined).map(({ vmid }) => asVmid(vmid))
  const count = failed.length + Number(reason !== undefined)
  if (count === 0) return
  try {
    const [counts, now] = [new BackupCounts(deps.store), seconds(deps.clock)]
    // What was asked for need not be there.
    if ((await deps.storage.list()).some(({ name }) => name === storage)) {
      await counts.failed(`storage/${storage}`, count, now)
    }
    for (const vmid of failed) {
      if (!(await deps.guests.exists(vmid))) continue
      await counts.failed(`${(await deps.guests.kindOf(vmid)) === 'lxc' ? 'ct' : 'vm'}/${vmid}`, 1, now)
    }
  } catch (cause) {
    if (!isFault(cause)) throw cause
    log(`INFO: backups that failed are not counted: ${cause.message}`)
  }
}

/** What telling takes. */
export interface Teller {
  readonly notify: Notify | undefined
  readonly deps: Pick<BackupRunDeps, 'host' | 'store' | 'clock'> & Pick<webhooks.WebhookNeeds, 'settings'>
  readonly log: (line: string) => void
  readonly signal: AbortSignal
  readonly task: TaskFacts
}

/** Nobody's job fails because it cannot be told. */
export async function tell(teller: Teller, about: Omit<JobOutcome, 'node' | 'upid' | 'startedMs'>): Promise<void> {
  const { node, upid, startTime } = teller.task
  const outcome: JobOutcome = { node, upid, startedMs: startTime * 1000, ...about }
  await mail(teller, outcome)
  await callWebhook(teller, outcome)
}

/**
 * A job that ended before its end. What somebody asked for and stopped is no news to anybody.
 * @param guests that had their turn, where that is known
 */
export async function reportEnd(
  context: JobContext,
  cause: unknown,
  guests: readonly GuestOutcome[] = [],
): Promise<void> {
  if (context.signal.aborted && context.params.jobId === undefined) return
  await reportJob(context, { guests, isFailed: true, reason: messageOf(cause) })
}

/** Its process died before it could tell of itself. */
export async function reportDeath(context: JobContext): Promise<void> {
  if (!reported.has(context.task.upid)) await reportEnd(context, 'its process ended unexpectedly')
}

async function mail({ notify, deps, log }: Teller, outcome: JobOutcome): Promise<void> {
  const { event = 'backup', node, guests, isFailed, reason } = outcome
  if (notify === undefined || notify.mailTo.length === 0 || (notify.on === 'failure' && !needsLook(outcome))) return
  const to = notify.mailTo.join(', ')
  try {
    const subject = `${event} on ${node}: ${isFailed ? 'FAILED' : 'successful'}${besides(guests)}`
    const lines = [...(reason === undefined ? [] : [reason]), ...guests.flatMap(linesOf)]
    await sendMail(deps.host, { node, to: notify.mailTo, subject, text: `${subject}\n\n${lines.join('\n')}\n` })
    log(`INFO: mail handed over for ${to}`)
  } catch (cause) {
    if (!isFault(cause)) throw cause
    const isAbsent = cause.kind === 'missing'
    log(
      `${isAbsent ? 'INFO' : 'WARN'}: no mail goes to ${to}: ${isAbsent ? 'this node has no mail system' : cause.message}`,
    )
  }
}

function linesOf({ vmid, volid, reason, alarms = [], hint }: GuestOutcome): string[] {
  const verdict = reason === undefined ? `ok, ${volid}` : `FAILED, ${reason}`
  const noticed = [...alarms.map((alarm) => `ALARM, ${alarm}`), ...(hint === undefined ? [] : [`hint, ${hint}`])]
  return [verdict, ...noticed].map((line) => `VM ${vmid}: ${line}`)
}

async function callWebhook({ deps, log, signal }: Teller, outcome: JobOutcome): Promise<void> {
  const { webhook } = await new BackupOptions(deps.store).get()
  if (webhook === undefined || (webhook.on === 'failure' && !needsLook(outcome))) return
  const { shownWebhook, tellWebhook } = load<typeof webhooks>('./webhook.ts')
  const where = shownWebhook(webhook)
  try {
    // A job that was stopped tells of it, too.
    await tellWebhook(webhook, outcome, { ...deps, signal: signal.aborted ? undefined : signal })
    log(`INFO: told ${where}`)
  } catch (cause) {
    if (!isFault(cause)) throw cause
    log(`WARN: ${where} is not told: ${cause.message}`)
  }
}
