/**
 * Jobs: what runs by itself, and when. Two documents each: what was configured, and since when the next run counts;
 * so that a run never collides with an edit.
 *
 * `since` is written before a run starts. A node that dies in between misses one run instead of making two; but jobs that
 * may run once too often are owed theirs until one came to something.
 */
import { nextDue, parseCalendarEvent } from '#base/calendar-event.ts'
import { Fault, invalid } from '#base/fault.ts'
import { type Clock, seconds } from '#base/clock.ts'
import { boolean, integer, object, optional, record, string } from '#base/schema/schema.ts'
import { type Document, Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

/** Parameters of the job as they are in the API, checked, in types of JSON. */
export type JobOptions = Readonly<Record<string, unknown>>

export interface Job {
  readonly id: string
  readonly options: JobOptions
}

export interface JobRun {
  /** Seconds since 1970: the next run is the first one due after this. */
  readonly since: number
  /** Task of the last run. */
  readonly upid?: string | undefined
  /** It was begun, and has come to nothing yet. */
  readonly isOwed?: boolean | undefined
}

const runShape = object({ since: integer(), upid: optional(string()), isOwed: optional(boolean()) })

export class ScheduledJobs {
  readonly #jobs: Documents<Record<string, unknown>>
  readonly #runs: Documents<JobRun>
  readonly #clock: Clock

  /** @param kind `backup`: prefix of the keys, and of the word for a job */
  constructor({ store, clock }: { readonly store: Store; readonly clock: Clock }, kind: string) {
    const prefix = `cluster/${kind}`
    this.#jobs = new Documents(store, { noun: `${kind} job`, prefix: `${prefix}-jobs/`, schema: record() })
    this.#runs = new Documents(store, { noun: `run of ${kind} job`, prefix: `${prefix}-runs/`, schema: runShape })
    this.#clock = clock
  }

  /** By id. */
  async list(): Promise<Job[]> {
    return (await this.#jobs.list()).map(asJob)
  }

  /** @throws Fault `missing`: `No such job 'x'`, as clients know it */
  async get(id: string): Promise<Job> {
    const found = await this.#jobs.find(id)
    if (!found) throw noSuchJob(id)
    return asJob(found)
  }

  async create(id: string, options: JobOptions): Promise<void> {
    if (await this.#jobs.find(id)) throw invalid({ id: `Job '${id}' already exists` })
    await this.#runs.put(id, { since: seconds(this.#clock) })
    await this.#jobs.create(id, { ...options })
  }

  /** What is due before the change does not count: a job that is switched on does not catch up. */
  async change(id: string, change: (before: JobOptions) => JobOptions): Promise<void> {
    await this.get(id)
    await this.#runs.alter(id, (run) => ({ ...run, since: seconds(this.#clock) }))
    await this.#jobs.update(id, (before) => ({ ...change(before) }))
  }

  async delete(id: string): Promise<void> {
    await this.get(id)
    await this.#jobs.delete(id)
    await this.#runs.alter(id, () => undefined)
  }

  /** Changes options that follow something else; unlike `change` this says nothing about the next run. */
  async adapt(id: string, change: (before: JobOptions) => JobOptions): Promise<void> {
    await this.#jobs.alter(id, (before) => (before === undefined ? undefined : { ...change(before) }))
  }

  async runOf(id: string): Promise<JobRun> {
    return (await this.#runs.find(id))?.value ?? { since: seconds(this.#clock) }
  }

  /**
   * @param isOwed until `paid`
   * @returns false when another process took this run
   */
  async take(id: string, before: JobRun, isOwed?: true): Promise<boolean> {
    const now = seconds(this.#clock)
    let isOurs = false
    await this.#runs.alter(id, (run) => {
      isOurs = run === undefined || run.since === before.since
      return isOurs ? { ...run, since: now, isOwed } : run
    })
    return isOurs
  }

  async started(id: string, upid: string): Promise<void> {
    await this.#runs.alter(id, (run) => (run === undefined ? undefined : { ...run, upid }))
  }

  async paid(id: string): Promise<void> {
    await this.#runs.alter(id, (run) => run && { since: run.since, upid: run.upid })
  }

  /** Seconds since 1970; nothing for a job that is switched off or never due. */
  async nextRun(job: Job, zone: string): Promise<number | undefined> {
    const { since } = await this.runOf(job.id)
    return isEnabled(job) ? dueAfter(job, since, zone) : undefined
  }
}

export function isEnabled({ options }: Job): boolean {
  return options.enabled !== false
}

export function dueAfter({ options }: Job, since: number, zone: string): number | undefined {
  const parsed = parseCalendarEvent(typeof options.schedule === 'string' ? options.schedule : '')
  return parsed.ok ? nextDue(parsed.event, since, zone) : undefined
}

function asJob({ name, value }: Document<Record<string, unknown>>): Job {
  return { id: name, options: value }
}

function noSuchJob(id: string): Fault {
  return new Fault('missing', `No such job '${id}'`)
}
