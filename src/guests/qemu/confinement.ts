/** What holds the programs of a guest together and within its limits: a control group of its own. */
import { isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import type { GroupLimits } from '#host/cgroups/cgroup-limits.ts'
import type { Options } from '../config.ts'
import { cpuLimitsOf } from './cpu.ts'
import type { Accelerator } from './machine.ts'
import { memoryLimitBytes } from './memory.ts'

/** Threads for processors, block layer and display; a guest that needs more is out of hand. */
const extraProcesses = 512

export class Confinement {
  readonly #instance: string
  readonly #log: Log
  #cgroups: Promise<Cgroups> | undefined

  constructor(instance: string, log: Log) {
    this.#instance = instance
    this.#log = log
  }

  /** Below each controller. */
  groupOf(vmid: Vmid): string {
    return `hakobune-${this.#instance}/qemu-${vmid}`
  }

  /** Puts a program into the guest's group, whose limits are in force from then on. */
  async hold(vmid: Vmid, options: Options, accelerator: Accelerator, pid: number): Promise<void> {
    const cgroups = await this.#groups()
    const { unkept } = await cgroups.createGroup(this.groupOf(vmid), groupLimitsOf(options, accelerator))
    await this.join(vmid, pid)
    if (unkept.length > 0) {
      this.#log.warn(`this machine cannot keep some limits of VM ${vmid}`, { limits: unkept })
    }
  }

  /** Puts one more program into the group of a running guest. Why one has ended already is found by who asks it. */
  async join(vmid: Vmid, pid: number): Promise<void> {
    try {
      await (await this.#groups()).addProcess(this.groupOf(vmid), pid)
    } catch (fault) {
      if (!isFault(fault, 'missing')) throw fault
    }
  }

  /** Gives a running guest other limits. */
  async limit(vmid: Vmid, options: Options, accelerator: Accelerator): Promise<void> {
    await (await this.#groups()).limit(this.groupOf(vmid), groupLimitsOf(options, accelerator))
  }

  /** Room for a second process of a running guest beside the first, until `limit`. */
  async makeRoom(vmid: Vmid, options: Options, accelerator: Accelerator): Promise<void> {
    const { memoryBytes = 0, ...limits } = groupLimitsOf(options, accelerator)
    await (await this.#groups()).limit(this.groupOf(vmid), { ...limits, memoryBytes: 2 * memoryBytes })
  }

  /** Ends whatever is left in the group, and removes it. */
  async remove(vmid: Vmid): Promise<void> {
    const cgroups = await this.#groups()
    await cgroups.killAll(this.groupOf(vmid))
    await cgroups.removeGroup(this.groupOf(vmid))
  }

  #groups(): Promise<Cgroups> {
    return (this.#cgroups ??= Cgroups.detect())
  }
}

function groupLimitsOf(options: Options, accelerator: Accelerator): GroupLimits {
  const { cpuLimit, cpuUnits } = cpuLimitsOf(options)
  return {
    memoryBytes: memoryLimitBytes(options, accelerator),
    // PVE's 100 is the ordinary weight of the unified hierarchy; there and here an ordinary group has 1024 shares.
    cpuShares: Math.max(2, Math.round((cpuUnits * 1024) / 100)),
    ...(cpuLimit === undefined ? {} : { cpuQuota: cpuLimit }),
    pids: extraProcesses,
  }
}
