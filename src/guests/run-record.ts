/**
 * Which guests run, as files: one record per guest in a directory only root can write.
 *
 * A guest's own run directory belongs to its QEMU, so nothing there may tell this program whom to signal.
 * The records stand beside it. A record is `starting` from before the first thing is made until the guest's
 * processors run, then `running`; it goes when the last thing is removed.
 *
 * Who may run beside whom: whoever starts a guest creates its record exclusively, so two starts cannot
 * pass each other. Cleaning up begins with renaming the record, so only one process cleans up, and a start
 * waits until it is done.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { link, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { asVmid } from '#base/ids.ts'
import { codeOf, makeDirectory } from '#host/files.ts'
import { isAlive, startTimeOf, statOf } from '#host/programs/proc.ts'
import type { Options } from './config.ts'
import { type GuestKind, nounOf } from './kind.ts'

export interface ProcessName {
  readonly pid: number
  readonly startTime: number
}

export interface StartingRecord {
  readonly state: 'starting'
  readonly kind: GuestKind
  readonly starter: ProcessName
  /** Task that starts it; empty outside tasks. */
  readonly startedBy: string
  /** Network namespace its cards will be in; empty for the node's own. */
  readonly netns: string
}

interface Running {
  readonly state: 'running'
  /** QEMU; of a container the monitor that leads it through reboots. */
  readonly process: ProcessName
  readonly startedBy: string
  /** What it was started with. */
  readonly options: Options
  /** Network namespace its cards are in; empty for the node's own. */
  readonly netns: string
  /** Tap, or the node's end of the cable, of each card. */
  readonly taps: Readonly<Record<string, string>>
  /** What viewers by SPICE meet; absent where there is none. */
  readonly spiceCertificate?: string | undefined
}

export interface MachineRecord extends Running {
  readonly kind: 'qemu'
  readonly machine: string
  readonly qemuVersion: string
  /** Start time of the first process it ran in without a stop; absent while that is the one it runs in. */
  readonly runsSince?: number | undefined
  /** The process it has just left, until what that leaves is gone. */
  readonly left?: LeftProcess | undefined
}

export interface LeftProcess extends ProcessName {
  /** Directory the process it runs in now was started in, and has until it has the guest's. */
  readonly birthplace: string
}

export interface ContainerRecord extends Running {
  readonly kind: 'lxc'
}

export type RunningRecord = MachineRecord | ContainerRecord

export type RunRecord = StartingRecord | RunningRecord

/** Somebody is about to end a guest, and halts it for that or lets it halt. */
export interface Ending {
  readonly by: ProcessName
  /** Of the guest. */
  readonly process: ProcessName
  /** `stop`: it has to end; `shutdown`: it is asked to, and ends when it is off. */
  readonly how: 'stop' | 'shutdown'
}

/** Cleaning up takes a fraction of a second; whoever takes longer is dead. */
const cleanUpLimitMs = 5_000
/** Of this process, so that each has a name of its own. */
let begun = 0

export class RunRecords {
  readonly #directory: string
  readonly #changed: () => void

  /** @param changed told after every change of who runs */
  constructor(directory: string, changed: () => void) {
    this.#directory = directory
    this.#changed = changed
  }

  /** The record of a guest whose process, or starter, is alive. */
  async alive(vmid: Vmid): Promise<RunRecord | undefined> {
    const record = await this.#read(this.#path(vmid))
    return record && record !== 'unreadable' && (await isAliveRecord(record)) ? record : undefined
  }

  async running(vmid: Vmid): Promise<RunningRecord | undefined> {
    const record = await this.alive(vmid)
    return record?.state === 'running' ? record : undefined
  }

  /** What kind of guest has a record here, alive or not, or is being cleaned up after. */
  async kindOf(vmid: Vmid): Promise<GuestKind | undefined> {
    const record = (await this.#read(this.#path(vmid))) ?? (await this.#read(this.#claimed(vmid)))
    return record === undefined || record === 'unreadable' ? undefined : record.kind
  }

  /**
   * Begins a start. @throws Fault `conflict` when somebody else started, or is starting, the guest
   */
  async begin(vmid: Vmid, record: StartingRecord): Promise<void> {
    await makeDirectory(this.#directory)
    begun += 1
    const own = join(this.#directory, `${vmid}.begun-${process.pid}-${begun}`)
    try {
      // It is there whole or not at all: an empty one would be taken for that of a dead starter, and cleaned up after.
      await writeFile(own, JSON.stringify(record), { mode: 0o600 })
      await link(own, this.#path(vmid))
      this.#changed()
    } catch (cause) {
      if (codeOf(cause) === 'EEXIST')
        throw new Fault('conflict', `${nounOf[record.kind]} ${vmid} already running`, { cause })
      throw cause
    } finally {
      await rm(own, { force: true })
    }
  }

  async write(vmid: Vmid, record: RunRecord): Promise<void> {
    // Under a name of the guest's own: what a killed writer leaves goes with the record.
    await writeFile(this.#next(vmid), JSON.stringify(record), { mode: 0o600 })
    await rename(this.#next(vmid), this.#path(vmid))
    this.#changed()
  }

  /**
   * Takes a dead guest's record out of sight, for one caller alone, who cleans up and then calls `finish`.
   * Undefined when there is nothing to clean up, the guest lives, or somebody else was first.
   */
  async claim(vmid: Vmid): Promise<RunRecord | 'unreadable' | undefined> {
    // What is not there now may be that of a start in a moment.
    const found = await this.#read(this.#path(vmid))
    if (found === undefined || (found !== 'unreadable' && (await isAliveRecord(found)))) return undefined
    try {
      await rename(this.#path(vmid), this.#claimed(vmid))
      this.#changed()
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return undefined
      throw cause
    }
    const record = await this.#read(this.#claimed(vmid))
    // Since the question above somebody else cleaned up and started the guest anew: give its record back.
    if (record && record !== 'unreadable' && (await isAliveRecord(record))) {
      await rename(this.#claimed(vmid), this.#path(vmid))
      this.#changed()
      return undefined
    }
    return record
  }

  /** For the starter alone, whose start failed and who has cleaned up. */
  async remove(vmid: Vmid): Promise<void> {
    await rm(this.#next(vmid), { force: true })
    await rm(this.#path(vmid), { force: true })
    this.#changed()
  }

  async finish(vmid: Vmid): Promise<void> {
    await this.forgetEnding(vmid)
    await rm(this.#next(vmid), { force: true })
    await rm(this.#claimed(vmid), { force: true })
  }

  /** To be called before the guest is halted, so that it is not left so if this process dies. */
  async noteEnding(vmid: Vmid, guest: ProcessName, how: Ending['how']): Promise<void> {
    const by = { pid: process.pid, startTime: (await startTimeOf(process.pid)) ?? 0 }
    await writeFile(this.#ending(vmid), JSON.stringify({ by, process: guest, how } satisfies Ending), { mode: 0o600 })
  }

  async forgetEnding(vmid: Vmid): Promise<void> {
    await rm(this.#ending(vmid), { force: true })
  }

  /** Endings whose process died on the way. */
  async abandonedEndings(): Promise<{ readonly vmid: Vmid; readonly ending: Ending }[]> {
    const found: { vmid: Vmid; ending: Ending }[] = []
    for (const name of this.#names()) {
      const [, id] = /^(\d+)\.ending$/.exec(name) ?? []
      if (id === undefined) continue
      const ending = this.#endingOf(asVmid(Number(id)))
      if (ending && !(await isAlive(ending.by.pid, ending.by.startTime)))
        found.push({ vmid: asVmid(Number(id)), ending })
    }
    return found
  }

  #endingOf(vmid: Vmid): Ending | undefined {
    try {
      return JSON.parse(readFileSync(this.#ending(vmid), 'utf8')) as Ending
    } catch (cause) {
      // Half written is not begun.
      if (codeOf(cause) === 'ENOENT' || cause instanceof SyntaxError) return undefined
      throw cause
    }
  }

  /**
   * Removes what starters left that were killed before their record was in place: of those starts there is nothing else.
   * @returns what `all` does, by the same look
   */
  async forgetUnbegun(): Promise<Vmid[]> {
    const names = this.#names()
    for (const name of names) {
      const [, pid] = /^\d+\.begun-(\d+)-\d+$/.exec(name) ?? []
      if (pid === undefined || (await statOf(Number(pid)))) continue
      await rm(join(this.#directory, name), { force: true })
    }
    return guestsIn(names)
  }

  /**
   * Waits until nobody cleans up this guest any more. Returns the record when a cleaner died on the way
   * and the caller must do it again.
   */
  async abandoned(vmid: Vmid): Promise<RunRecord | 'unreadable' | undefined> {
    let record: RunRecord | 'unreadable' | undefined
    const isGone = async () => (record = await this.#read(this.#claimed(vmid))) === undefined
    try {
      await waitFor(isGone, { what: `clean-up of guest ${vmid}`, timeoutMs: cleanUpLimitMs })
      return undefined
    } catch (fault) {
      if (isFault(fault, 'timeout')) return record
      throw fault
    }
  }

  /** Guests with a record or an unfinished clean-up, alive or not. */
  async all(): Promise<Vmid[]> {
    return guestsIn(this.#names())
  }

  #names(): string[] {
    try {
      // Of a file system in memory: the way through the thread pool would be most of it.
      return readdirSync(this.#directory)
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return []
      throw cause
    }
  }

  async #read(path: string): Promise<RunRecord | 'unreadable' | undefined> {
    try {
      // Of a file system in memory, as all of them are.
      const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
      return asRunRecord(value) ?? 'unreadable'
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return undefined
      // None of ours, whose records are put in place whole.
      if (cause instanceof SyntaxError) return 'unreadable'
      throw cause
    }
  }

  #path(vmid: Vmid): string {
    return join(this.#directory, `${vmid}.json`)
  }

  #next(vmid: Vmid): string {
    return join(this.#directory, `${vmid}.next`)
  }

  #ending(vmid: Vmid): string {
    return join(this.#directory, `${vmid}.ending`)
  }

  #claimed(vmid: Vmid): string {
    return join(this.#directory, `${vmid}.cleaning`)
  }
}

function guestsIn(names: readonly string[]): Vmid[] {
  const ids = names.flatMap((name) => /^(\d+)\.(json|cleaning)$/.exec(name)?.[1] ?? [])
  return [...new Set(ids)].map(asVmid).toSorted((a, b) => a - b)
}

async function isAliveRecord(record: RunRecord): Promise<boolean> {
  const { pid, startTime } = record.state === 'running' ? record.process : record.starter
  return isAlive(pid, startTime)
}

function asRunRecord(value: unknown): RunRecord | undefined {
  if (typeof value !== 'object' || value === null || !('state' in value)) return undefined
  const isOne = value.state === 'running' ? 'process' in value && 'options' in value : value.state === 'starting'
  // Before there were containers, no record said that its guest was none.
  return isOne ? ({ kind: 'qemu', ...value } as RunRecord) : undefined
}
