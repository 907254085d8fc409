/**
 * What a running guest uses. Shares of processors need two readings some time apart, so one of each guest is
 * remembered; and a list, which asks about every guest, takes a reading younger than a second as it is.
 * A question about one guest is always asked anew: its state may have changed a moment ago, by another process.
 */
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { type Fault, isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { readIfPresent } from '#host/files.ts'
import { isProgramReplaced, statOf, uptimeSeconds } from '#host/programs/proc.ts'
import type { RunningFacts } from './guest.ts'
import type { MonitorSample } from './qemu/monitor.ts'
import type { ContainerRecord, MachineRecord, RunningRecord } from './run-record.ts'

/** Processor time at one moment: two of them make a share. */
interface CpuMark {
  readonly atMs: number
  readonly cpuSeconds: number
}

interface Reading {
  readonly startTime: number
  readonly atMs: number
  /** The share in `facts` counts from here; a second old or more, or it would say nothing. */
  readonly since: CpuMark
  readonly facts: RunningFacts
}

/** What a guest uses, but for shares and the network. */
export interface Use {
  readonly ageSeconds: number
  readonly cpuSeconds: number
  readonly facts: Omit<RunningFacts, 'state' | 'uptimeSeconds' | 'cpu' | 'netInBytes' | 'netOutBytes'>
}

export interface CounterNeeds {
  readonly clock: Clock
  readonly log: Log
  /** Asks QEMU; rejects with kind `timeout` or `unavailable` while it does not answer, `denied` for a stranger. */
  readonly sample: (vmid: Vmid, record: MachineRecord) => Promise<MonitorSample>
  /** Undefined when the container ended while it was looked at. */
  readonly useOfContainer: (vmid: Vmid, record: ContainerRecord) => Promise<Use | undefined>
}

const freshMs = 1_000
const ticksPerSecond = 100

export class Counters {
  readonly #needs: CounterNeeds
  readonly #last = new Map<Vmid, Reading>()
  /** Start times of those reported, once each. */
  readonly #reported = new Map<Vmid, number>()

  constructor(needs: CounterNeeds) {
    this.#needs = needs
  }

  /**
   * @param size what the guest has in all
   * @param mayBeOld a reading of the last second will do
   * @returns undefined when the process ended while it was looked at
   */
  async read(
    vmid: Vmid,
    record: RunningRecord,
    size: { readonly processors: number; readonly memoryBytes: number },
    mayBeOld: boolean,
  ): Promise<RunningFacts | undefined> {
    const { startTime } = record.process
    const last = this.#lastOf(vmid, startTime)
    const atMs = this.#needs.clock.monotonic()
    if (mayBeOld && last && atMs - last.atMs < freshMs) return last.facts
    const [use, net] = await Promise.all([
      record.kind === 'lxc'
        ? this.#needs.useOfContainer(vmid, record)
        : this.#useOfMachine(vmid, record, { last, ...size }),
      netBytes(record),
    ])
    if (!use) return undefined
    const { ageSeconds, cpuSeconds } = use
    const mark: CpuMark = { atMs, cpuSeconds }
    const since = last?.since ?? { atMs: atMs - ageSeconds * 1000, cpuSeconds: 0 }
    const share = (mark.cpuSeconds - since.cpuSeconds) / ((atMs - since.atMs) / 1000) / size.processors
    const facts: RunningFacts = {
      state: 'running',
      ...use.facts,
      uptimeSeconds: Math.floor(ageSeconds + earlierSeconds(record)),
      cpu: Math.min(1, Math.max(0, share)),
      ...net,
    }
    this.#last.set(vmid, { atMs, startTime, facts, since: atMs - since.atMs >= freshMs ? mark : since })
    return facts
  }

  async #useOfMachine(
    vmid: Vmid,
    record: MachineRecord,
    { last, memoryBytes }: { readonly last: Reading | undefined; readonly memoryBytes: number },
  ): Promise<Use | undefined> {
    const { pid, startTime } = record.process
    const [stat, monitor, uptime, isOutdated] = await Promise.all([
      statOf(pid),
      this.#sample(vmid, record, last),
      uptimeSeconds(),
      isProgramReplaced(pid),
    ])
    if (!stat || stat.startTime !== startTime) return undefined
    return {
      ageSeconds: Math.max(uptime - startTime / ticksPerSecond, 0.01),
      cpuSeconds: stat.cpuSeconds,
      facts: {
        pid,
        qmpStatus: monitor.status,
        // QEMU itself needs memory too; a guest that shows more than it has would look broken.
        memoryBytes: monitor.guestUsedBytes ?? Math.min(memoryBytes, stat.residentBytes),
        hostMemoryBytes: stat.residentBytes,
        swapBytes: 0,
        diskBytes: 0,
        diskSizeBytes: 0,
        diskReadBytes: monitor.diskReadBytes,
        diskWriteBytes: monitor.diskWriteBytes,
        machine: record.machine,
        qemuVersion: record.qemuVersion,
        isOutdated,
      },
    }
  }

  #lastOf(vmid: Vmid, startTime: number): Reading | undefined {
    const last = this.#last.get(vmid)
    return last?.startTime === startTime ? last : undefined
  }

  /**
   * A QEMU that is busy with another client keeps its last counters rather than hold up a list; one that lets
   * another answer in its place must not hide the other guests either, but somebody has to hear of it.
   */
  async #sample(vmid: Vmid, record: MachineRecord, last: Reading | undefined): Promise<MonitorSample> {
    try {
      return await this.#needs.sample(vmid, record)
    } catch (fault) {
      if (isFault(fault, 'denied')) this.#report(vmid, record, fault)
      else if (!isFault(fault, 'timeout') && !isFault(fault, 'unavailable')) throw fault
      const { qmpStatus = 'running', diskReadBytes = 0, diskWriteBytes = 0 } = last?.facts ?? {}
      return { status: qmpStatus, diskReadBytes, diskWriteBytes }
    }
  }

  #report(vmid: Vmid, { process: { startTime } }: RunningRecord, { message }: Fault): void {
    if (this.#reported.get(vmid) === startTime) return
    this.#reported.set(vmid, startTime)
    this.#needs.log.warn(`the monitor of VM ${vmid} is not its QEMU's`, { reason: message })
  }
}

/** How long it had run in other processes, without a stop, before it came into the one it runs in. */
function earlierSeconds(record: RunningRecord): number {
  const { startTime } = record.process
  return record.kind === 'qemu' ? (startTime - (record.runsSince ?? startTime)) / ticksPerSecond : 0
}

/** What the node receives from a tap the guest has sent. Taps in another namespace are not seen from here. */
async function netBytes(record: RunningRecord): Promise<{ netInBytes: number; netOutBytes: number }> {
  let [netInBytes, netOutBytes] = [0, 0]
  for (const tap of Object.values(record.taps)) {
    const statistics = join('/sys/class/net', tap, 'statistics')
    netInBytes += Number((await readIfPresent(join(statistics, 'tx_bytes'))) ?? 0)
    netOutBytes += Number((await readIfPresent(join(statistics, 'rx_bytes'))) ?? 0)
  }
  return { netInBytes, netOutBytes }
}
