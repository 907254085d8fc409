/**
 * Task directories: `<stateDir>/tasks/<upid>/` with `request.json`, `journal`, `log`, `progress.json`, `end.json`.
 *
 * A directory without a whole `request.json` was being made when power was lost: nothing had been promised. One without
 * `end.json` belongs to a task that runs or has died. `end.json` never changes, so it is read once. A directory
 * is renamed before it is removed, for one that lost its `end.json` first would look like a task to undo.
 */
import { KiB } from '#base/bytes.ts'
import type { FaultKind } from '#base/fault.ts'
import type { Followed } from '#base/trace.ts'
import { open, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { UpidText } from '#base/ids.ts'
import { asFileFault, codeOf, makeDirectory, readIfPresent, syncDirectory, writeFileAtomic } from '#host/files.ts'
import type { Json } from '#store/store.ts'
import { openJournal } from './journal.ts'
import { isNoSpace } from './log.ts'
import { isUpid, parseUpid } from './upid.ts'

/** What was asked for, without its secrets. */
export interface TaskRequest {
  readonly operation: string
  readonly params: Json
  /** The daemon itself attended to it: there is nothing to undo. */
  readonly isAttended?: true
  /** The task that asked for it. */
  readonly parent?: string
}

export interface TaskEnd {
  /** `OK`, `WARNINGS: n`, or the text of the error in one line. */
  readonly exitstatus: string
  /** Milliseconds since 1970. */
  readonly endedAtMs: number
  /** Of the fault it ended with. */
  readonly kind?: FaultKind
  /** What to do next. */
  readonly remedy?: string
}

export interface TaskProgress {
  readonly phase?: string
  /** 0 to 1. */
  readonly fraction?: number
  /** Bytes per second. */
  readonly rate?: number
  /** Seconds. */
  readonly left?: number
}

/** A process that unwinds a dead task. */
export interface RecoveryProcess {
  readonly pid: number
  readonly pstart: number
}

const removedPrefix = '.removed-'
const outputPrefix = '.output-'
const roomBytes = 64 * KiB

export class TaskArchive {
  readonly #root: string
  readonly #ends = new Map<UpidText, TaskEnd>()
  /** The order of what was written down here. */
  readonly #created = new Map<UpidText, number>()
  #creations = 0

  constructor(stateDir: string) {
    this.#root = join(stateDir, 'tasks')
  }

  directoryOf(upid: UpidText): string {
    return join(this.#root, upid)
  }

  logOf(upid: UpidText): string {
    return join(this.directoryOf(upid), 'log')
  }

  journalOf(upid: UpidText): string {
    return join(this.directoryOf(upid), 'journal')
  }

  /** What the worker printed past its log: stack traces of bugs. */
  outputOf(upid: UpidText): string {
    return join(this.directoryOf(upid), 'output')
  }

  /** Where a worker prints until its identifier, and so its directory, is known. */
  async newOutput(name: string): Promise<string> {
    await makeDirectory(this.#root, 0o700)
    return join(this.#root, outputPrefix + name)
  }

  /**
   * Writes down what was asked for; when this returns, it survives power loss.
   * @param output where its process prints, if it has one
   * @throws Fault `exhausted`, having left nothing
   */
  async create(upid: UpidText, request: TaskRequest, output?: string): Promise<void> {
    try {
      await this.#create(upid, request, output)
    } catch (error) {
      if (output !== undefined) await rm(output, { force: true })
      if ((await this.all()).includes(upid)) await this.remove(upid)
      throw asFileFault(error, this.directoryOf(upid))
    }
  }

  async #create(upid: UpidText, request: TaskRequest, output?: string): Promise<void> {
    const directory = this.directoryOf(upid)
    await makeDirectory(directory, 0o700)
    if (output !== undefined) await rename(output, this.outputOf(upid))
    {
      await using journal = await openJournal(this.journalOf(upid))
      await journal.add({ event: 'accepted', upid }, true)
    }
    // Nobody knows of the task yet, and half of a request is none: so it is written in place.
    await using file = await open(join(directory, 'request.json'), 'wx', 0o600)
    await file.writeFile(JSON.stringify(request))
    await file.sync()
    for (const path of [directory, this.#root]) await syncDirectory(path)
    this.#created.set(upid, (this.#creations += 1))
  }

  /** The request, or nothing when there is no such task. */
  async request(upid: UpidText): Promise<TaskRequest | undefined> {
    return this.#readJson(upid, 'request.json', isRequest)
  }

  async end(upid: UpidText): Promise<TaskEnd | undefined> {
    const known = this.#ends.get(upid)
    if (known) return known
    const end = await this.#readJson(upid, 'end.json', isEnd)
    if (end) this.#ends.set(upid, end)
    return end
  }

  /** @param canBeLost with the power: its journal says the same, and whoever finds it without an end tells it again */
  async writeEnd(upid: UpidText, end: TaskEnd, canBeLost = false): Promise<void> {
    await writeFileAtomic(join(this.directoryOf(upid), 'end.json'), JSON.stringify(end), 0o600, canBeLost)
  }

  /** Which parts of the node it passed, where somebody asked for that. */
  async way(upid: UpidText): Promise<Followed | undefined> {
    return this.#readJson(upid, 'way.json', isWay)
  }

  async writeWay(upid: UpidText, way: Followed): Promise<void> {
    await writeFileAtomic(join(this.directoryOf(upid), 'way.json'), JSON.stringify(way), 0o600, true)
  }

  async progress(upid: UpidText): Promise<TaskProgress> {
    return (await this.#readJson(upid, 'progress.json', isProgress)) ?? {}
  }

  async recoveryProcess(upid: UpidText): Promise<RecoveryProcess | undefined> {
    return this.#readJson(upid, 'recovery.json', isRecoveryProcess)
  }

  async writeRecoveryProcess(upid: UpidText, process: RecoveryProcess): Promise<void> {
    await writeFileAtomic(join(this.directoryOf(upid), 'recovery.json'), JSON.stringify(process))
  }

  /** Removes what a process that died was writing of a task nobody works on now. */
  async tidy(upid: UpidText): Promise<void> {
    const directory = this.directoryOf(upid)
    const halfWritten = (await readdir(directory)).filter((name) => name.endsWith('.tmp'))
    for (const name of halfWritten) await rm(join(directory, name), { force: true })
  }

  /** Whether the disk takes what the end of a task needs; without that a recovery would only die of it. */
  async hasRoom(upid: UpidText): Promise<boolean> {
    const probe = join(this.directoryOf(upid), 'room.tmp')
    try {
      await writeFile(probe, new Uint8Array(roomBytes))
      return true
    } catch (error) {
      if (isNoSpace(error)) return false
      throw error
    } finally {
      await rm(probe, { force: true })
    }
  }

  /** Every task there is a directory of, in no order. */
  async all(): Promise<UpidText[]> {
    return (await this.#names()).filter((name): name is UpidText => isUpid(name))
  }

  /** By the start of the task, in seconds; then as they were written down; then by the start of the process, of which one may do several. */
  newestFirst(upids: readonly UpidText[]): UpidText[] {
    const parsed = upids.map((text) => ({ text, upid: parseUpid(text), created: this.#created.get(text) ?? 0 }))
    parsed.sort(
      ({ upid: a, created: x }, { upid: b, created: y }) =>
        b.starttime - a.starttime || y - x || b.pstart - a.pstart || b.pid - a.pid,
    )
    return parsed.map(({ text }) => text)
  }

  /** Tasks that one asked for, the newest first. */
  async startedBy(parent: string): Promise<UpidText[]> {
    const found: UpidText[] = []
    for (const upid of this.newestFirst(await this.all())) {
      if ((await this.request(upid))?.parent === parent) found.push(upid)
    }
    return found
  }

  async remove(upid: UpidText): Promise<void> {
    const removed = join(this.#root, removedPrefix + upid.slice('UPID:'.length))
    await rename(this.directoryOf(upid), removed)
    this.#ends.delete(upid)
    this.#created.delete(upid)
    await rm(removed, { recursive: true, force: true })
  }

  /**
   * Removes the tasks that ended first, beyond the number to keep. Not those that started first: a long one
   * that has just ended is what somebody is waiting for.
   */
  async prune(keep: number): Promise<void> {
    const finished: { upid: UpidText; endedAtMs: number }[] = []
    for (const upid of this.newestFirst(await this.all())) {
      const end = await this.end(upid)
      if (end) finished.push({ upid, endedAtMs: end.endedAtMs })
    }
    finished.sort((a, b) => b.endedAtMs - a.endedAtMs)
    for (const { upid } of finished.slice(keep)) await this.remove(upid)
  }

  /** Removes what a dead daemon left half removed or half made. */
  async sweep(): Promise<void> {
    const leftovers = (await this.#names()).filter(
      (name) => name.startsWith(removedPrefix) || name.startsWith(outputPrefix),
    )
    for (const name of leftovers) await rm(join(this.#root, name), { recursive: true, force: true })
  }

  async #names(): Promise<string[]> {
    try {
      return await readdir(this.#root)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return [] // No task was ever started here.
      throw error
    }
  }

  /** Other files than the journal are written as a whole, so what does not parse is as good as absent. */
  async #readJson<T>(upid: UpidText, name: string, is: (value: unknown) => value is T): Promise<T | undefined> {
    const text = await readIfPresent(join(this.directoryOf(upid), name))
    if (text === undefined) return undefined
    try {
      const value: unknown = JSON.parse(text)
      return is(value) ? value : undefined
    } catch {
      return undefined
    }
  }
}

function isRequest(value: unknown): value is TaskRequest {
  return isObject(value) && typeof value.operation === 'string' && 'params' in value
}

function isEnd(value: unknown): value is TaskEnd {
  return isObject(value) && typeof value.exitstatus === 'string' && typeof value.endedAtMs === 'number'
}

function isWay(value: unknown): value is Followed {
  return isObject(value) && typeof value.ms === 'number' && Array.isArray(value.stops)
}

function isProgress(value: unknown): value is TaskProgress {
  return isObject(value)
}

function isRecoveryProcess(value: unknown): value is RecoveryProcess {
  return isObject(value) && typeof value.pid === 'number' && typeof value.pstart === 'number'
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
