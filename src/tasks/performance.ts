/**
 * One task from go to end, inside its process: locks, steps, log, progress, outcome.
 *
 * The order at the end is what clients and recovery rely on: the journal says how it came out, then the log has
 * its last line, then the locks are free, and only then the task counts as stopped. Whatever of this cannot be
 * written ends the process there, and a recovery takes over with the locks still held.
 */
import type { Clock } from '#base/clock.ts'
import { asOne, isFault, messageOf } from '#base/fault.ts'
import type { UpidText } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import type { Json, Store } from '#store/store.ts'
import type { TaskArchive, TaskRequest, TaskEnd } from './archive.ts'
import { type Journal, type JournalRecord, openJournal, stateOf } from './journal.ts'
import { acquireLocks, releaseLocks } from './lock.ts'
import { TaskLog, toLines } from './log.ts'
import { type Around, interruption, perform, unwind } from './perform.ts'
import { progressWriter } from './progress.ts'
import { type AnyOperation, operationNamed, type Operations } from './registry.ts'
import { type Redactor, redactorFor } from './secrets.ts'
import { parseUpid } from './upid.ts'

/** What a task itself needs of the services. */
export interface TaskServices {
  readonly store: Store
  readonly clock: Clock
  /** Services tell by it what happens beside what the task was asked for. */
  readonly log?: Pick<Log, 'tell'>
}

export interface TaskPlace {
  readonly archive: TaskArchive
  readonly services: TaskServices
  readonly operations: Operations
  readonly upid: UpidText
}

/**
 * Performs what was asked for, or undoes it; never throws for what the operation does.
 * @returns its exit status: `OK`, `WARNINGS: n`, or the text of the error
 */
export async function performTask(place: TaskPlace, request: TaskRequest, signal: AbortSignal): Promise<string> {
  const { services, operations, upid } = place
  return withTask(place, request, signal, async ({ journal, log, around }) => {
    const operation = await operationNamed(operations, request.operation)
    const params = request.params
    await acquireLocks(services.store, locksOf(operation, params), upid, {
      signal,
      clock: services.clock,
      onWait: ({ name, upid: holder }) => log.line(`waiting for lock '${name}', held by task ${holder}`),
    })
    await perform(...handingOver(operation, params, services), journal, around)
    return success(log)
  })
}

/** Finishes what a dead process left of the task. */
export async function recoverTask(place: TaskPlace): Promise<void> {
  const { archive, operations, services, upid } = place
  const request = (await archive.request(upid)) ?? { operation: '', params: null }
  await withTask(place, request, new AbortController().signal, async ({ journal, log, around }) => {
    const { stage } = stateOf(journal.records)
    if (stage.is === 'settled') return stage.exitstatus
    log.line('the process of this task ended unexpectedly')
    const operation = await operationNamed(operations, request.operation)
    const left = await unwind(...handingOver(operation, request.params, services), journal, around)
    if (left === 'succeeded') return success(log)
    return stage.is === 'unwinding' && stage.reason !== interruption
      ? exitTextOf(stage.reason)
      : `interrupted: ${operation.facts.afterwards ?? 'undone'}`
  })
}

interface Inside {
  readonly journal: Journal
  readonly log: TaskLog
  readonly around: Around
}

async function withTask(
  { archive, services, operations, upid }: TaskPlace,
  request: TaskRequest,
  signal: AbortSignal,
  work: (inside: Inside) => Promise<string>,
): Promise<string> {
  const { store, clock } = services
  const hide = redactorFor(request.params, (await operations.get(request.operation)?.())?.facts.secrets ?? [])
  await using file = await openJournal(archive.journalOf(upid))
  const journal = redacted(file, hide)
  using log = new TaskLog(archive.logOf(upid), hide.text)
  using undo = new DisposableStack()
  if (services.log) {
    services.log.tell = (line) => log.line(line)
    undo.defer(() => delete services.log?.tell)
  }
  const { user, node, starttime } = parseUpid(upid)
  const around: Around = {
    log: (line) => log.line(line),
    warn: (line) => log.warn(line),
    progress: progressWriter(archive.directoryOf(upid), { clock, hide, log: (line) => log.line(line) }),
    signal,
    task: { upid, user, node, startTime: starttime },
    clock,
  }
  const { kind, remedy, lines, ...outcome } = await outcomeOf(() => work({ journal, log, around }), hide)
  const exitstatus = hide.text(outcome.exitstatus)
  const { stage } = stateOf(journal.records)
  // A recovery that finds it settled tells the end as it was.
  const endedAtMs = (stage.is === 'settled' ? stage.endedAtMs : undefined) ?? clock.now()
  if (stage.is !== 'settled') await journal.add({ event: 'settled', exitstatus, endedAtMs })
  // In one go with the last line: who follows the log knows by that one that they tell of the end.
  for (const line of lines) log.line(line)
  log.end(exitstatus)
  await releaseLocks(store, (holder) => holder === upid)
  const why = { ...(kind ? { kind } : {}), ...(remedy === undefined ? {} : { remedy: hide.text(remedy) }) }
  await archive.writeEnd(upid, { exitstatus, endedAtMs, ...why }, kind === undefined)
  return exitstatus
}

function success(log: TaskLog): string {
  return log.warnings === 0 ? 'OK' : `WARNINGS: ${log.warnings}`
}

/** What went wrong in one line; the rest of it is for the log, and a bug's stack goes to the process's output. */
async function outcomeOf(
  work: () => Promise<string>,
  hide: Redactor,
): Promise<Pick<TaskEnd, 'exitstatus' | 'kind' | 'remedy'> & { readonly lines: readonly string[] }> {
  try {
    return { exitstatus: await work(), lines: [] }
  } catch (thrown) {
    const error = asOne(thrown)
    const [first, ...more] = toLines(messageOf(error))
    if (isFault(error)) {
      const wrong = Object.entries(error.fields ?? {}).map(([name, rule]) => `${name}: ${rule}`)
      const { kind, remedy } = error
      const lines = [...more, ...wrong, ...(remedy === undefined ? [] : [remedy])]
      // The first line alone would say that something was wrong, and not what.
      const text = [exitTextOf(first ?? ''), ...wrong].join(' ')
      return { exitstatus: text, lines, kind, ...(remedy === undefined ? {} : { remedy }) }
    } else if (error instanceof Error) {
      process.stderr.write(`${hide.text(error.stack ?? error.message)}\n`)
    }
    return { exitstatus: exitTextOf(first ?? ''), lines: more }
  }
}

/** Never `OK` or `WARNINGS: n`, whatever a program said when it failed. */
function exitTextOf(text: string): string {
  const line = toLines(text)[0]?.trim() ?? ''
  return line === '' ? 'failed without saying why' : /^(OK|WARNINGS: \d+)$/.test(line) ? `failed: ${line}` : line
}

function locksOf({ facts }: AnyOperation, params: Json): readonly string[] {
  return facts.locks?.(params as never) ?? []
}

/** The one place where parameters and services, checked by whoever asked, meet the operation they are for. */
function handingOver(operation: AnyOperation, params: Json, services: TaskServices) {
  return [operation, params as never, services as never] as const
}

function redacted(journal: Journal, hide: Redactor): Journal {
  return { records: journal.records, add: (record, canWait) => journal.add(withoutSecretTexts(record, hide), canWait) }
}

function withoutSecretTexts(record: JournalRecord, hide: Redactor): JournalRecord {
  switch (record.event) {
    case 'done':
      return { ...record, result: hide.json(record.result) }
    case 'unwinding':
      return { ...record, reason: hide.text(record.reason) }
    case 'accepted':
    case 'begin':
    case 'undo':
    case 'undone':
    case 'succeeded':
    case 'settled':
      return record
    default:
      return record satisfies never
  }
}
