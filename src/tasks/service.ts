/**
 * Tasks as the daemon sees them: start, stop, wait, list, read, recover.
 *
 * A task lives in its own process and on disk; this class only watches. It may die at any moment: workers go
 * on, and the next one finds them by `recover`. Who may run beside whom: one daemon starts, recovers and prunes
 * the tasks of a node; any process may read their status and log.
 *
 * At most `limits.tasks.runningAtOnce` workers work at once. Those beyond are started and accepted, but wait
 * for their go; a daemon that dies meanwhile leaves them undone.
 */
import { type Clock, waitFor } from '#base/clock.ts'
import { Fault, invalid, isFault, messageOf } from '#base/fault.ts'
import type { UpidText } from '#base/ids.ts'
import { limits } from '#base/limits.ts'
import type { Log } from '#base/log.ts'
import { type Random, systemRandom } from '#base/random.ts'
import { isFollowed } from '#base/trace.ts'
import { readIfPresent } from '#host/files.ts'
import { signalProcess } from '#host/programs/proc.ts'
import type { Settings } from '#settings.ts'
import type { Json, Store } from '#store/store.ts'
import { TaskArchive } from './archive.ts'
import { type Attended, type AttendedBy, AttendedTasks } from './attended.ts'
import { type LogPage, readLogPage } from './log.ts'
import { TaskRecovery } from './recovery.ts'
import { type AnyOperation, operationNamed, type Operations } from './registry.ts'
import { Runner } from './runner.ts'
import { withoutSecrets } from './secrets.ts'
import { Slots } from './slots.ts'
import { isMeant, type TaskFilter, type TaskItem, type TaskStatus, toItem, toStatus } from './task.ts'
import type { Worker } from './task-process.ts'
import { asUpid, parseUpid, printUpid } from './upid.ts'

export interface TaskServiceNeeds {
  readonly settings: Settings
  readonly clock: Clock
  readonly log: Log
  readonly store: Store
  readonly operations: Operations
  /** Path of the file a task's process runs. */
  readonly workerEntry: string
  readonly random?: Random
  /** Bounds; defaults in `limits.tasks`. */
  readonly runningAtOnce?: number
  readonly kept?: number
  /** As the runner's. */
  readonly idleMs?: number
}

export interface TaskRequestedBy {
  /** Name of an operation. */
  readonly operation: string
  readonly params: Json
  /** `user@realm`, or `user@realm!token`. */
  readonly user: string
  /** The task whose call this is. */
  readonly parent?: string
}

/** How many accepted tasks may wait for each that runs. */
const waitingPerRunning = 4
/** A task that was asked to stop this long ago and is asked again is killed and undone by another process. */
const patienceMs = 10_000

export class TaskService implements AsyncDisposable {
  readonly #node: string
  readonly #clock: Clock
  readonly #log: Log
  readonly #operations: Operations
  readonly #archive: TaskArchive
  readonly #runner: Runner
  readonly #recovery: TaskRecovery
  readonly #attended: AttendedTasks
  readonly #slots: Slots
  readonly #runningAtOnce: number
  readonly #kept: number
  readonly #active = new Map<UpidText, Promise<void>>()
  readonly #workers = new Map<UpidText, Worker>()
  readonly #stopAskedAt = new Map<UpidText, number>()
  readonly #closing = new AbortController()
  #pruning: Promise<void> = Promise.resolve()

  constructor(needs: TaskServiceNeeds) {
    const { settings, clock, log, store, workerEntry, idleMs, random = systemRandom } = needs
    this.#node = settings.node
    this.#clock = clock
    this.#log = log
    this.#operations = needs.operations
    this.#archive = new TaskArchive(settings.stateDir)
    this.#runner = new Runner({ settings, archive: this.#archive, random, workerEntry, idleMs })
    this.#recovery = new TaskRecovery({ archive: this.#archive, runner: this.#runner, store, clock, log })
    this.#attended = new AttendedTasks({ archive: this.#archive, clock, node: settings.node })
    this.#runningAtOnce = needs.runningAtOnce ?? limits.tasks.runningAtOnce
    this.#kept = needs.kept ?? limits.tasks.kept
    this.#slots = new Slots(this.#runningAtOnce)
  }

  /**
   * Starts a task and returns its UPID once the task survives a crash: it will be done or undone.
   * @throws Fault `exhausted` when too many are waiting already
   */
  async start({ operation: name, params, user, parent }: TaskRequestedBy): Promise<UpidText> {
    const operation = await operationNamed(this.#operations, name)
    this.#refuseIfCrowded()
    const [worker, upid] = await this.#workerFor(operation, params, user)
    try {
      const told = withoutSecrets(params, operation.facts.secrets ?? [])
      const request = { operation: name, params: told, ...(parent === undefined ? {} : { parent }) }
      await this.#archive.create(upid, request, worker.output)
    } catch (error) {
      worker.dismiss()
      throw error
    }
    const isTraced = isFollowed()
    const atWork = async () => {
      const hasSlot = await this.#slots.take(worker.ended)
      if (hasSlot) worker.go({ upid, operation: name, params, ...(isTraced ? { isFollowed: true } : {}) })
      await worker.ended
      return hasSlot
    }
    this.#workers.set(upid, worker)
    void this.#watch(upid, atWork)
    return upid
  }

  /** A task of this process, for as long as something is open: no worker, no slot, and it ends with the daemon. */
  async attend(wanted: AttendedBy): Promise<Attended> {
    if (this.#closing.signal.aborted) throw new Fault('unavailable', 'the node is shutting down')
    const attended = await this.#attended.begin(wanted)
    const watching = attended.ended.then(() => {
      this.#active.delete(attended.upid)
      this.#pruning = this.#pruning.then(() => this.#prune())
    })
    this.#active.set(attended.upid, watching)
    return attended
  }

  /** @throws Fault `invalid` with `errors.upid` for a UPID that cannot be read or is not known. */
  async status(text: string): Promise<TaskStatus> {
    const upid = await this.#known(text)
    const end = await this.#archive.end(upid)
    return toStatus(upid, end, end ? {} : await this.#archive.progress(upid))
  }

  /** A page of the log: `limit` lines (0: all) after the first `start`. */
  async log(text: string, { start, limit }: { readonly start: number; readonly limit: number }): Promise<LogPage> {
    return readLogPage(this.#archive.logOf(await this.#known(text)), start, limit)
  }

  async rawLog(text: string): Promise<string> {
    return (await readIfPresent(this.#archive.logOf(await this.#known(text)))) ?? ''
  }

  /** Newest first. `total` counts all that match, beyond the page too. */
  async list(filter: TaskFilter = {}): Promise<{ tasks: TaskItem[]; total: number }> {
    const { start = 0, limit = 50 } = filter
    const tasks: TaskItem[] = []
    for (const upid of this.#archive.newestFirst(await this.#archive.all())) {
      const end = await this.#archive.end(upid)
      // One that is being written down now was not promised to anybody yet.
      if (!end && !(await this.#archive.request(upid))) continue
      const item = toItem(upid, end)
      if (isMeant(item, filter)) tasks.push(item)
    }
    return { tasks: tasks.slice(start, start + limit), total: tasks.length }
  }

  /** What runs now, also what is being undone. */
  active(): TaskItem[] {
    return this.#archive.newestFirst([...this.#active.keys()]).map((upid) => toItem(upid, undefined))
  }

  /** Whether a task that has not ended was started with this text somewhere in its parameters: the path of a file, say. */
  async isMentioned(text: string): Promise<boolean> {
    const quoted = JSON.stringify(text)
    for (const upid of this.#active.keys()) {
      const request = await this.#archive.request(upid)
      if (request && JSON.stringify(request.params).includes(quoted)) return true
    }
    return false
  }

  /**
   * Asks the task to stop; it undoes what it began. Asked again after ten seconds, its process is killed and
   * another one does that. A task that has ended stays as it is.
   */
  async stop(text: string): Promise<void> {
    const upid = await this.#known(text)
    if ((await this.#archive.end(upid)) || this.#attended.stop(upid)) return
    const now = this.#clock.monotonic()
    const askedAt = this.#stopAskedAt.get(upid)
    const isDeaf = askedAt !== undefined && now - askedAt >= patienceMs
    if (askedAt === undefined) this.#stopAskedAt.set(upid, now)
    const signal = isDeaf ? 'SIGKILL' : 'SIGTERM'
    const worker = this.#workers.get(upid)
    if (worker) return worker.signal(signal)
    // An earlier daemon's: it does nothing after this task.
    const { pid, pstart } = parseUpid(upid)
    await signalProcess(pid, pstart, signal)
  }

  /** Waits for the end. @throws Fault `timeout` when the task still runs then. */
  async wait(
    text: string,
    { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<TaskStatus> {
    const upid = await this.#known(text)
    const ask = async () => {
      const end = await this.#archive.end(upid)
      // A task may be forgotten soon after its end.
      if (!end) await this.#known(upid)
      return end
    }
    const end = await waitFor(ask, {
      what: `end of task ${upid}`,
      timeoutMs,
      signal,
      clock: this.#clock,
    })
    return toStatus(upid, end, {})
  }

  /**
   * Takes over what an earlier daemon started: watches workers that still run, brings those that died to their
   * end in fresh processes, frees locks nobody holds any more. Returns when the dead ones are done with, or wait
   * for space to be done with.
   */
  async recover(): Promise<void> {
    await this.#archive.sweep()
    const dead: Promise<void>[] = []
    for (const upid of await this.#archive.all()) {
      if (this.#active.has(upid) || (await this.#archive.end(upid))) continue
      const request = await this.#archive.request(upid)
      // Never promised to anybody.
      if (!request) await this.#archive.remove(upid)
      else if (request.isAttended) await this.#attended.endLeft(upid)
      else if (await this.#recovery.isWorkedOn(upid)) this.#adopt(upid)
      else dead.push(this.#unlessStuck(upid))
    }
    await Promise.all(dead)
    await this.#recovery.releaseLeftLocks(this.#node)
  }

  /** Stops watching. Tasks go on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort()
    await this.#pruning
    await this.#runner[Symbol.asyncDispose]()
  }

  #unlessStuck(upid: UpidText): Promise<void> {
    const { promise: stuck, resolve } = Promise.withResolvers<void>()
    return Promise.race([this.#watch(upid, () => this.#slots.take(), resolve), stuck])
  }

  #adopt(upid: UpidText): void {
    this.#slots.takeAnyway()
    void this.#watch(upid, async () => {
      await this.#recovery.untilAbandoned(upid, this.#closing.signal)
      return true
    })
  }

  /** Follows one task to its end. `atWork` resolves when its process is gone: whether it held a slot. */
  #watch(upid: UpidText, atWork: () => Promise<boolean>, onStuck: () => void = () => {}): Promise<void> {
    const watching = this.#follow(upid, atWork, onStuck).catch((error: unknown) => {
      if (!this.#closing.signal.aborted) this.#log.error('a task was lost', { upid, error: messageOf(error) })
    })
    this.#active.set(upid, watching)
    return watching
  }

  async #follow(upid: UpidText, atWork: () => Promise<boolean>, onStuck: () => void): Promise<void> {
    let hasSlot = false
    try {
      hasSlot = await atWork()
      if (this.#closing.signal.aborted) return
      await this.#recovery.finish(upid, this.#closing.signal, onStuck)
    } finally {
      if (hasSlot) this.#slots.giveBack()
      this.#active.delete(upid)
      this.#workers.delete(upid)
      this.#stopAskedAt.delete(upid)
    }
    if (this.#closing.signal.aborted) return
    this.#pruning = this.#pruning.then(() => this.#prune())
    await this.#pruning
  }

  async #prune(): Promise<void> {
    try {
      await this.#archive.prune(this.#kept)
    } catch (error) {
      if (!isFault(error, 'aborted')) this.#log.warn('old tasks cannot be removed', { error: messageOf(error) })
    }
  }

  /** Two tasks of one kind that a process does within a second would have one name: the second gets another process. */
  async #workerFor(operation: AnyOperation, params: Json, user: string): Promise<[Worker, UpidText]> {
    for (;;) {
      const worker = await this.#runner.worker()
      try {
        const upid = this.#upidFor(operation, params, user, worker)
        if ((await this.#archive.request(upid)) === undefined) return [worker, upid]
      } catch (error) {
        await this.#runner.dismiss(worker)
        throw error
      }
      await this.#runner.dismiss(worker)
    }
  }

  #upidFor({ name, facts }: AnyOperation, params: Json, user: string, { pid, pstart }: Worker): UpidText {
    // What the endpoint checked is what the operation takes.
    const id = String(facts.id?.(params as never) ?? '')
    const starttime = Math.floor(this.#clock.now() / 1000)
    return printUpid({ node: this.#node, pid, pstart, starttime, type: facts.upidType ?? name, id, user })
  }

  #refuseIfCrowded(): void {
    const most = this.#runningAtOnce * waitingPerRunning
    if (this.#closing.signal.aborted) throw new Fault('unavailable', 'the node is shutting down')
    if (this.#slots.waiting < most) return
    throw new Fault('exhausted', `${this.#runningAtOnce} tasks are running and ${most} wait: no more are accepted`, {
      remedy: 'Wait for some to end (hako task list --source active), then try again.',
    })
  }

  async #known(text: string): Promise<UpidText> {
    const upid = asUpid(text)
    if (!(await this.#archive.request(upid))) throw invalid({ upid: 'no such task' })
    return upid
  }
}
