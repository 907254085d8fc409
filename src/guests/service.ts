/**
 * Guests: what is configured, what runs, and the acts on both.
 *
 * Configurations live in the store, running guests in run records and in the machine itself; nothing is
 * remembered in this object but readings of counters, so any number of processes may hold one. Acts on one
 * guest exclude each other by the lock `guest/<vmid>` of the task that calls them; what must hold even
 * without it (two starts, a start beside a clean-up) is kept by the run records.
 */
import { join } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { waitFor } from '#base/clock.ts'
import type { Vmid } from '#base/ids.ts'
import { inTurns } from '#base/in-turns.ts'
import { isAlive } from '#host/programs/proc.ts'
import type { Options } from './config.ts'
import { isTemplate } from './config.ts'
import { GuestContainers } from './containers.ts'
import { Counters } from './counters.ts'
import type { GuestDocument } from './documents.ts'
import type { GuestStatus, GuestSummary, StartOptions } from './guest.ts'
import { type HookPhase, runHook } from './hook.ts'
import { type GuestKind, nounOf } from './kind.ts'
import { sample } from './qemu/monitor.ts'
import type { RegistryNeeds } from './registry.ts'
import { lockedFault } from './registry.ts'
import { configuredFacts } from './configured-facts.ts'
import type { RunningRecord } from './run-record.ts'

export interface ShutdownOptions {
  readonly timeoutMs?: number
  /** Pull the plug when the guest does not follow in time. */
  readonly forceStop?: boolean
  readonly signal?: AbortSignal
  readonly log?: (line: string) => void
}

const defaultShutdownMs = 60_000
const tooLate: Readonly<Record<GuestKind, string>> = {
  qemu: 'VM quit/powerdown failed - got timeout',
  lxc: 'container did not stop - got timeout',
}
/** How often it is looked whether a process is there, and asked whether its guest is off. */
const [lookEveryMs, askEveryMs] = [20, 100]
/** A list waits for a QEMU that does not answer no longer than this. */
const sampleLimitMs = 1_000
/** Running guests a list asks at a time. */
const askedAtOnce = 32

export class GuestService extends GuestContainers {
  readonly #needs: RegistryNeeds
  readonly #counters: Counters

  constructor(needs: RegistryNeeds) {
    super(needs)
    this.#needs = needs
    this.#counters = new Counters({
      clock: needs.clock,
      log: needs.log,
      sample: async (vmid, record) => {
        await using monitor = await this.qemu.monitorOf(vmid, record, 'short', { timeoutMs: sampleLimitMs })
        return await sample(monitor, record.options)
      },
      useOfContainer: (vmid, record) => this.lxc.use(vmid, record),
    })
  }

  /** Every guest with its state, by id; guests being created included. */
  async list(): Promise<GuestSummary[]> {
    const [guests, recorded] = await Promise.all([this.documents.list(), this.records.all()])
    // Most guests of a long list have no record: they do not run, and there is nothing to read.
    const mayRun = new Set(recorded)
    // All at once would be one long turn of the event loop, in which nobody else is answered.
    const described = await inTurns(
      guests.filter(({ vmid }) => mayRun.has(vmid)),
      askedAtOnce,
      ({ vmid, document }) => this.#describe(vmid, document, true),
    )
    const states = new Map(described.map((status) => [status.vmid, status]))
    return guests.map(({ vmid, document }) => states.get(vmid) ?? withoutProcess(vmid, document))
  }

  // Running guests

  /** @param kind a guest of another kind is not meant. @throws Fault `missing` */
  async status(vmid: Vmid, kind?: GuestKind): Promise<GuestStatus> {
    return this.#describe(vmid, await this.documents.get(vmid, kind), false)
  }

  async isRunning(vmid: Vmid): Promise<boolean> {
    return (await this.records.running(vmid)) !== undefined
  }

  /** @throws Fault `conflict` 'VM 100 not running' */
  async isPaused(vmid: Vmid): Promise<boolean> {
    if ((await this.kindOf(vmid)) === 'lxc') return this.lxc.isFrozen(vmid)
    await using monitor = await this.qmp(vmid)
    return !(await monitor.execute<{ running: boolean }>('query-status')).running
  }

  /** Pid of the running guest; undefined when it is stopped. */
  async processOf(vmid: Vmid): Promise<number | undefined> {
    return (await this.records.running(vmid))?.process.pid
  }

  /** The task that started the running guest; undefined when it is stopped. */
  async startedBy(vmid: Vmid): Promise<string | undefined> {
    return (await this.records.running(vmid))?.startedBy
  }

  /** Directory of the guest's sockets and logs: `qmp.sock`, `agent.sock`, `serial.sock`, `serial.log`, `firmware.log`, `vnc.sock`, `qemu.log`. */
  runDirOf(vmid: Vmid): string {
    return join(this.#needs.settings.runDir, 'guests', String(vmid))
  }

  /** Control group of a virtual machine, below each controller. */
  groupOf(vmid: Vmid): string {
    return this.qemu.groupOf(vmid)
  }

  /** Starts the guest from what is configured. Returns once its processors run. */
  async start(vmid: Vmid, how: StartOptions = {}): Promise<void> {
    const { kind, options: wanted, reservedBy, filling } = await this.documents.get(vmid)
    const options = how.memory?.options ?? wanted
    if (reservedBy !== undefined) throw lockedFault(vmid, 'create', kind)
    if (isTemplate(wanted)) {
      throw new Fault('conflict', `you can't start a ${nounOf[kind].toLowerCase()} if it's a template`)
    }
    if (await this.isRunning(vmid)) throw new Fault('conflict', `${nounOf[kind]} ${vmid} already running`)
    if (kind === 'qemu') {
      await this.writeCloudInit(vmid, how.toldName === undefined ? options : { ...options, name: how.toldName })
    }
    await this.#hook(vmid, options, 'pre-start')
    await this.driverOf(kind).start(vmid, options, { ...how, ...(filling ? { filling } : {}) })
    await this.#hookAfter(vmid, options, 'post-start')
  }

  /** Makes true that a start by this task never happened; leaves a guest another task started alone. */
  async undoStart(vmid: Vmid, startedBy: string): Promise<void> {
    const driver = await this.driverFor(vmid)
    if ((await this.startedBy(vmid)) === startedBy) await driver.stop(vmid)
    else await driver.reap(vmid, { waits: true })
  }

  /**
   * Asks the guest to shut down: a virtual machine through its agent when that answers, else by the power button, a
   * container through its init.
   * @throws Fault `timeout` when it does not follow, unless `forceStop`
   */
  async shutdown(vmid: Vmid, how: ShutdownOptions = {}): Promise<void> {
    const { timeoutMs = defaultShutdownMs, forceStop = false, signal, log = () => {} } = how
    const record = await this.#requireRunning(vmid)
    const driver = this.driverOf(record.kind)
    await this.#hookAfter(vmid, record.options, 'pre-stop')
    const { pid, startTime } = record.process
    const isGone = async () => !(await isAlive(pid, startTime))
    try {
      await using held = record.kind === 'qemu' ? await this.qemu.endings.holdShutdown(vmid, record) : undefined
      log(await this.#askToShutDown(vmid, record))
      const isDown = async () => (await isGone()) || (await held?.isOff()) === true
      const everyMs = held ? askEveryMs : lookEveryMs
      await waitFor(isDown, { what: `end of process ${pid}`, timeoutMs, everyMs, signal })
      if (await isGone()) await driver.reap(vmid, { waits: true })
      else await driver.stop(vmid)
    } catch (fault) {
      if (!isFault(fault, 'timeout')) throw fault
      const isLate = !(await isGone())
      if (isLate && !forceStop) throw new Fault('timeout', tooLate[record.kind], { cause: fault })
      if (isLate) log(`it did not shut down within ${timeoutMs / 1000} s and is stopped`)
      await (isLate ? driver.stop(vmid) : driver.reap(vmid, { waits: true }))
    }
    await this.#hookAfter(vmid, record.options, 'post-stop')
  }

  /** @returns what was done, for the log */
  async #askToShutDown(vmid: Vmid, { kind, options }: RunningRecord): Promise<string> {
    if (kind === 'lxc') {
      await this.lxc.askToShutDown(vmid)
      return 'told its init to shut down'
    }
    return (await this.askToShutDown(vmid, options)) ? 'asked the guest agent to shut down' : 'pressed the power button'
  }

  /** @throws Fault `conflict` 'VM 100 not running' */
  async #requireRunning(vmid: Vmid): Promise<RunningRecord> {
    const record = await this.records.running(vmid)
    if (!record) throw new Fault('conflict', `${nounOf[await this.kindOf(vmid)]} ${vmid} not running`)
    return record
  }

  /** Pulls the plug. @throws Fault `conflict` 'VM 100 not running' */
  async stop(vmid: Vmid): Promise<void> {
    const { kind, options } = await this.#requireRunning(vmid)
    await this.#hookAfter(vmid, options, 'pre-stop')
    await this.driverOf(kind).stop(vmid)
    await this.#hookAfter(vmid, options, 'post-stop')
  }

  /** Halts the processors; memory stays. */
  async suspend(vmid: Vmid): Promise<void> {
    if ((await this.kindOf(vmid)) === 'lxc') await this.lxc.freeze(vmid, true)
    else await this.command(vmid, 'stop')
  }

  async resume(vmid: Vmid): Promise<void> {
    if ((await this.kindOf(vmid)) === 'lxc') await this.lxc.freeze(vmid, false)
    else await this.command(vmid, 'cont')
  }

  /**
   * After this program (re)starts: finds the guests that kept running meanwhile and removes what dead ones
   * left. Returns the running ones.
   */
  async adopt(): Promise<Vmid[]> {
    await this.#finishEndings()
    const records = await this.records.forgetUnbegun()
    for (const vmid of records) {
      const driver = await this.driverFor(vmid)
      if (await driver.reap(vmid, { waits: true })) this.#needs.log.info(`guest ${vmid} ended while nobody watched`)
    }
    return this.#runningOf(records)
  }

  /**
   * For a loop: removes what guests that ended by themselves left behind and returns them, and keeps the
   * logs of the others within their bound.
   */
  async reapDead(): Promise<Vmid[]> {
    const reaped: Vmid[] = []
    await this.#finishEndings()
    for (const vmid of await this.records.forgetUnbegun()) {
      const driver = await this.driverFor(vmid)
      if (await driver.reap(vmid)) {
        reaped.push(vmid)
        const ended = await this.documents.find(vmid)
        if (ended) await this.#hookAfter(vmid, ended.options, 'post-stop')
      } else await driver.boundLogs(vmid)
    }
    return reaped
  }

  /** Guests whose end somebody began who died are left halted by nobody. */
  async #finishEndings(): Promise<void> {
    for (const { vmid, ending } of await this.records.abandonedEndings()) {
      const record = await this.qemu.running(vmid)
      if (record) await this.qemu.endings.finish(vmid, record, ending)
    }
  }

  /** Removes a stopped guest's leftovers; for operations that hold its lock. */
  async reap(vmid: Vmid): Promise<void> {
    await (await this.driverFor(vmid)).reap(vmid, { waits: true })
  }

  async #runningOf(vmids: readonly Vmid[]): Promise<Vmid[]> {
    const running = await Promise.all(vmids.map((vmid) => this.isRunning(vmid)))
    return vmids.filter((_, position) => running[position])
  }

  async #describe(vmid: Vmid, document: GuestDocument, mayBeOld: boolean): Promise<GuestStatus> {
    const record = await this.records.running(vmid)
    if (!record) return withoutProcess(vmid, document)
    const facts = configuredFacts(vmid, document, record.options)
    const { processors, maxMemoryBytes: memoryBytes } = facts
    const state = await this.#counters.read(vmid, record, { processors, memoryBytes }, mayBeOld)
    return state ? { ...facts, state } : withoutProcess(vmid, document)
  }

  async #hook(vmid: Vmid, { hookscript }: Options, phase: HookPhase): Promise<void> {
    if (hookscript !== undefined) await runHook(this.#needs, hookscript, vmid, phase)
  }

  /** Only before a start can a script refuse what is about to be done. */
  async #hookAfter(vmid: Vmid, options: Options, phase: HookPhase): Promise<void> {
    try {
      await this.#hook(vmid, options, phase)
    } catch (fault) {
      if (!isFault(fault)) throw fault
      this.#needs.log.warn(`the hook script of guest ${vmid} failed`, { phase, reason: fault.message })
    }
  }
}

/** The same object while nothing changes, so that what is made of it can be kept. */
const stillGuests = new WeakMap<GuestDocument, GuestStatus>()

function withoutProcess(vmid: Vmid, document: GuestDocument): GuestStatus {
  const known = stillGuests.get(document)
  if (known) return known
  const status = Object.freeze<GuestStatus>({ ...configuredFacts(vmid, document), state: { state: 'stopped' } })
  stillGuests.set(document, status)
  return status
}
