/**
 * The end of a guest's QEMU by our hand, so that the records of changes of its raw disks outlive it (`kept-bitmaps.ts`).
 *
 * For those a guest has to stand still while its QEMU is there: one whose plug is pulled is halted first, and the QEMU
 * of one that is asked to shut down stays when the guest is off. Both are noted before they are done, with who does it;
 * when that process dies on the way, whoever looks after guests sees to the end. A guest that switches itself off
 * unasked takes the records with it: QEMU would have to wait for somebody each time, and the daemon may be away.
 */
import type { Clock } from '#base/clock.ts'
import { waitFor } from '#base/clock.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { endProcess, isAlive } from '#host/programs/proc.ts'
import { type QmpClient, within } from '#host/qemu/qmp.ts'
import type { GuestStorage } from '../needs.ts'
import type { Ending, MachineRecord, ProcessName, RunRecords } from '../run-record.ts'
import { hasBitmapsToKeep, type KeepPlace, type SetAside, setBitmapsAside, vouchFor } from './kept-bitmaps.ts'
import { quit } from './monitor.ts'

export interface EndingNeeds {
  readonly clock: Clock
  readonly log: Log
  readonly storage: Pick<GuestStorage, 'location'>
}

/** What of the driver it works on. */
export interface EndingParts {
  readonly records: RunRecords
  readonly runDirOf: (vmid: Vmid) => string
  readonly uidOf: (vmid: Vmid) => number
  readonly monitorOf: (
    vmid: Vmid,
    record: MachineRecord,
    which: 'short',
    options?: { readonly timeoutMs?: number },
  ) => Promise<QmpClient>
}

/** A guest that is asked to shut down. */
export interface HeldShutdown extends AsyncDisposable {
  /** It is off, and its QEMU waits to be ended. */
  readonly isOff: () => Promise<boolean>
}

/** How long QEMU may take to write back its caches when told to quit, before it is killed. */
export const quitLimitMs = 10_000
/** How long a stop may take for the records' sake. */
const keepLimitMs = 5_000

export class Endings {
  readonly #needs: EndingNeeds
  readonly #parts: EndingParts

  constructor(needs: EndingNeeds, parts: EndingParts) {
    this.#needs = needs
    this.#parts = parts
  }

  /** Ends QEMU: `quit`, and SIGKILL when it does not follow in time, or at all. What it leaves stays. */
  async end(vmid: Vmid, record: MachineRecord, limitMs = quitLimitMs): Promise<void> {
    const { process } = record
    let aside: SetAside | undefined
    try {
      await using monitor = await this.#parts.monitorOf(vmid, record, 'short', { timeoutMs: limitMs })
      aside = await this.#setAside(vmid, record, monitor)
      await quit(monitor)
      await untilGone(process, limitMs)
    } catch (fault) {
      if (!isFault(fault)) throw fault
      this.#needs.log.warn(`VM ${vmid} did not quit and is killed`, { reason: messageOf(fault) })
      await endProcess(process.pid, process.startTime, { graceMs: 0 })
      return
    }
    try {
      if (aside) await vouchFor(aside, this.#needs.clock)
    } catch (cause) {
      this.#notKept(vmid, cause)
    }
  }

  async #setAside(vmid: Vmid, record: MachineRecord, monitor: QmpClient): Promise<SetAside | undefined> {
    const late = () => new Fault('timeout', `not within ${keepLimitMs / 1000} s`)
    const note = () => this.#parts.records.noteEnding(vmid, record.process, 'stop')
    try {
      return await within(setBitmapsAside(monitor, this.#placeOf(vmid, record), note), keepLimitMs, undefined, late)
    } catch (cause) {
      this.#notKept(vmid, cause)
      return undefined
    }
  }

  /**
   * From now on QEMU waits when the guest switches itself off, until this is disposed of. Then one that is off is
   * ended, and one that is not goes on as before. Nothing for a guest without records that need it.
   */
  async holdShutdown(vmid: Vmid, record: MachineRecord): Promise<HeldShutdown | undefined> {
    const { records } = this.#parts
    try {
      await using monitor = await this.#parts.monitorOf(vmid, record, 'short')
      if (!(await hasBitmapsToKeep(monitor, this.#placeOf(vmid, record)))) return undefined
      await records.noteEnding(vmid, record.process, 'shutdown')
      await monitor.execute('set-action', { shutdown: 'pause' })
    } catch (cause) {
      // What was done of it is taken back in the end.
      this.#notKept(vmid, cause)
    }
    return {
      isOff: async () => {
        try {
          await using monitor = await this.#parts.monitorOf(vmid, record, 'short')
          return await isOff(monitor)
        } catch (fault) {
          // It ends, or is busy.
          if (isFault(fault)) return false
          throw fault
        }
      },
      [Symbol.asyncDispose]: () => this.#release(vmid, record),
    }
  }

  async #release(vmid: Vmid, record: MachineRecord): Promise<void> {
    const { pid, startTime } = record.process
    const isThere = () => isAlive(pid, startTime)
    if (!(await isThere())) return
    try {
      if (await this.#isStillOn(vmid, record)) await this.#parts.records.forgetEnding(vmid)
      else await this.end(vmid, record)
    } catch (fault) {
      if (!isFault(fault)) throw fault
      // Else what was noted stays.
      if (await isThere()) this.#needs.log.warn(`VM ${vmid} may wait for its end`, { reason: fault.message })
    }
  }

  /** Also sees to it that from now on it ends by itself when it is off. */
  async #isStillOn(vmid: Vmid, record: MachineRecord): Promise<boolean> {
    await using monitor = await this.#parts.monitorOf(vmid, record, 'short')
    await monitor.execute('set-action', { shutdown: 'poweroff' })
    return !(await isOff(monitor))
  }

  /** After the death of who began it: ends the guest, unless that was asked to shut down and is not off. */
  async finish(vmid: Vmid, record: MachineRecord, { process, how }: Ending): Promise<void> {
    const isOfThis = process.pid === record.process.pid && process.startTime === record.process.startTime
    if (!isOfThis) await this.#parts.records.forgetEnding(vmid)
    else if (how === 'stop') await this.end(vmid, record)
    else await this.#release(vmid, record)
  }

  #placeOf(vmid: Vmid, { options }: MachineRecord): KeepPlace {
    const { runDirOf, uidOf } = this.#parts
    return { runDir: runDirOf(vmid), uid: uidOf(vmid), options, storage: this.#needs.storage }
  }

  #notKept(vmid: Vmid, cause: unknown): void {
    this.#needs.log.warn(`records of changes of VM ${vmid} are not kept`, { reason: messageOf(cause) })
  }
}

async function isOff(monitor: QmpClient): Promise<boolean> {
  return (await monitor.execute<{ status: string }>('query-status')).status === 'shutdown'
}

/** @throws Fault `timeout` */
async function untilGone({ pid, startTime }: ProcessName, timeoutMs: number): Promise<void> {
  const isGone = async () => !(await isAlive(pid, startTime))
  await waitFor(isGone, { what: `end of process ${pid}`, timeoutMs, everyMs: 20 })
}
