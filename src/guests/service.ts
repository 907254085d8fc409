/**
 * Guests: what is configured, what runs, and the acts on both.
 *
 * Configurations live in the store, running guests in run records and in the machine itself; nothing is
 * remembered in this object but readings of counters, so any number of processes may hold one. Acts on one
 * guest exclude each other by the lock `guest/<vmid>` of the task that calls them; what must hold even
 * without it (two starts, a start beside a clean-up) is kept by the run records.
 */
import { join } from 'node:path'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { inTurns } from '#base/in-turns.ts'
import { AgentClient } from '#host/guest-agent.ts'
import type { QmpClient } from '#host/qmp.ts'
import type { Listener } from '#host/unix-peer.ts'
import { cloudInitPart, writeCloudInit } from './cloud-init/drive.ts'
import { toldOptions } from './cloud-init/options.ts'
import type { Options } from './config.ts'
import { isTemplate } from './config.ts'
import { configuredFacts } from './configured-facts.ts'
import { GuestConsoles } from './consoles.ts'
import { Counters } from './counters.ts'
import type { GuestDocument } from './documents.ts'
import type { GuestStatus, GuestSummary, StartOptions } from './guest.ts'
import { type HookPhase, runHook } from './hook.ts'
import { agentOf } from './qemu/agent.ts'
import type { qmpSockets } from './qemu/command-line.ts'
import { cloudInitVolumesIn, driveOf, printDrive } from './qemu/drive.ts'
import { sample } from './qemu/monitor.ts'
import { nicsOf } from './qemu/nic.ts'
import type { RegistryNeeds } from './registry.ts'
import { GuestRegistry, lockedFault } from './registry.ts'

export interface ShutdownOptions {
  readonly timeoutMs?: number
  /** Pull the plug when the guest does not follow in time. */
  readonly forceStop?: boolean
  readonly signal?: AbortSignal
  readonly log?: (line: string) => void
}

const defaultShutdownMs = 60_000
/** A list waits for a QEMU that does not answer no longer than this. */
const sampleLimitMs = 1_000
/** Running guests a list asks at a time. */
const askedAtOnce = 32

export class GuestService extends GuestRegistry {
  readonly consoles: GuestConsoles
  readonly #needs: RegistryNeeds
  readonly #counters: Counters

  constructor(needs: RegistryNeeds) {
    super(needs)
    this.#needs = needs
    this.consoles = new GuestConsoles({ documents: this.documents, driver: this.driver })
    this.#counters = new Counters({
      clock: needs.clock,
      log: needs.log,
      sample: async (vmid, record) => {
        await using monitor = await this.driver.monitorOf(vmid, record, 'short', { timeoutMs: sampleLimitMs })
        return await sample(monitor, record.options)
      },
    })
  }

  /** Every guest with its state, by id; guests being created included. */
  async list(): Promise<GuestSummary[]> {
    const [guests, recorded] = await Promise.all([this.documents.list(), this.driver.records.all()])
    // Most guests of a long list have no record: they do not run, and there is nothing to read.
    const mayRun = new Set(recorded)
    // All at once would be one long turn of the event loop, in which nobody else is answered.
    return inTurns(guests, askedAtOnce, ({ vmid, document }) =>
      mayRun.has(vmid) ? this.#describe(vmid, document, true) : withoutProcess(vmid, document),
    )
  }

  // Running guests

  async status(vmid: Vmid): Promise<GuestStatus> {
    return this.#describe(vmid, await this.documents.get(vmid), false)
  }

  async isRunning(vmid: Vmid): Promise<boolean> {
    return (await this.driver.running(vmid)) !== undefined
  }

  /** @throws Fault `conflict` 'VM 100 not running' */
  async isPaused(vmid: Vmid): Promise<boolean> {
    await using monitor = await this.qmp(vmid)
    return !(await monitor.execute<{ running: boolean }>('query-status')).running
  }

  /** Its cards whose bridge this node does not have: with them it does not start. */
  async withoutBridge(options: Options): Promise<{ readonly name: string; readonly bridge: string }[]> {
    const wanted = nicsOf(options).flatMap(({ name, bridge }) => (bridge === undefined ? [] : [{ name, bridge }]))
    if (wanted.length === 0) return []
    const there = await this.#needs.network.bridgeNames()
    return wanted.filter(({ bridge }) => !there.includes(bridge))
  }

  /** The task that started the running guest; undefined when it is stopped. */
  async startedBy(vmid: Vmid): Promise<string | undefined> {
    return (await this.driver.running(vmid))?.startedBy
  }

  /** Directory of the guest's sockets and logs: `qmp.sock`, `agent.sock`, `serial.sock`, `serial.log`, `firmware.log`, `vnc.sock`, `qemu.log`. */
  runDirOf(vmid: Vmid): string {
    return this.driver.runDirOf(vmid)
  }

  /** Who must be found at the sockets in there. @throws Fault `conflict` 'VM 100 not running' */
  async listenerOf(vmid: Vmid): Promise<Listener> {
    return this.driver.listenerOf(vmid, await this.driver.requireRunning(vmid))
  }

  /** The uid (and gid) its QEMU runs as. */
  uidOf(vmid: Vmid): number {
    return this.driver.uidOf(vmid)
  }

  /** Its control group, below each controller. */
  groupOf(vmid: Vmid): string {
    return this.driver.groupOf(vmid)
  }

  /** Starts the guest from what is configured. Returns once its processors run. */
  async start(vmid: Vmid, how: StartOptions = {}): Promise<void> {
    const { options: wanted, reservedBy } = await this.documents.get(vmid)
    const options = how.memory?.options ?? wanted
    if (reservedBy !== undefined) throw lockedFault(vmid, 'create')
    if (isTemplate(wanted)) throw new Fault('conflict', `you can't start a vm if it's a template`)
    if (await this.isRunning(vmid)) throw new Fault('conflict', `VM ${vmid} already running`)
    await this.#writeCloudInit(vmid, how.toldName === undefined ? options : { ...options, name: how.toldName })
    await this.#hook(vmid, options, 'pre-start')
    await this.driver.start(vmid, options, how)
    await this.#hookAfter(vmid, options, 'post-start')
  }

  async #writeCloudInit(vmid: Vmid, options: Options): Promise<void> {
    const [drive] = cloudInitVolumesIn(options)
    if (drive) await writeCloudInit(this.#needs, vmid, { volid: drive.volid, options })
  }

  /** What the guest's cloud-init drive would hold if it were written now. @throws Fault `missing` naming a snippet */
  async cloudInitPart(vmid: Vmid, part: 'user' | 'network' | 'meta'): Promise<string> {
    return cloudInitPart(this.#needs, vmid, toldOptions(await this.config(vmid)), part)
  }

  /**
   * Writes the guest's cloud-init drive anew; a running guest gets it as a new disc. For operations that hold the
   * guest's lock.
   * @param told what it is told instead of what is configured: what a running guest had, to take an update back
   * @throws Fault `conflict` when there is none, `missing` naming a snippet, `exhausted`
   */
  async updateCloudInit(vmid: Vmid, told?: Options): Promise<void> {
    const { volid } = await this.requireCloudInit(vmid)
    const config = await this.config(vmid)
    const options = told ?? toldOptions(config)
    await writeCloudInit(this.#needs, vmid, { volid, options })
    const [inserted] = cloudInitVolumesIn(config.running ?? {})
    if (!config.running || !inserted) return
    const text = printDrive(driveOf(inserted.name, config.running[inserted.name] ?? ''), { file: volid })
    await this.driver.changeMedium(vmid, driveOf(inserted.name, text), volid)
    await this.changeRunning(vmid, () => ({ ...options, [inserted.name]: text }))
  }

  /** @throws Fault `conflict` saying how to get one */
  async requireCloudInit(vmid: Vmid): Promise<{ name: string; volid: VolumeId }> {
    const [drive] = cloudInitVolumesIn((await this.config(vmid)).options)
    if (drive) return drive
    throw new Fault('conflict', `VM ${vmid} has no cloud-init drive`, {
      remedy: `Give it one: \`hako vm set ${vmid} --ide2 <storage>:cloudinit\`.`,
    })
  }

  /** Makes true that a start by this task never happened; leaves a guest another task started alone. */
  async undoStart(vmid: Vmid, startedBy: string): Promise<void> {
    if ((await this.startedBy(vmid)) === startedBy) await this.driver.stop(vmid)
    else await this.driver.reap(vmid, { waits: true })
  }

  /**
   * Asks the guest to shut down, through its agent when that answers, else by the power button.
   * @throws Fault `timeout` when it does not follow, unless `forceStop`
   */
  async shutdown(vmid: Vmid, how: ShutdownOptions = {}): Promise<void> {
    const { timeoutMs = defaultShutdownMs, forceStop = false, signal, log = () => {} } = how
    const { process, options } = await this.driver.requireRunning(vmid)
    await this.#hookAfter(vmid, options, 'pre-stop')
    try {
      log(
        (await this.#askToShutDown(vmid, options)) ? 'asked the guest agent to shut down' : 'pressed the power button',
      )
      await this.driver.untilGone(process, timeoutMs, signal)
      await this.driver.reap(vmid, { waits: true })
    } catch (fault) {
      if (!isFault(fault, 'timeout')) throw fault
      if (!forceStop) throw new Fault('timeout', 'VM quit/powerdown failed - got timeout', { cause: fault })
      log(`it did not shut down within ${timeoutMs / 1000} s and is stopped`)
      await this.driver.stop(vmid)
    }
    await this.#hookAfter(vmid, options, 'post-stop')
  }

  /** True when the agent took the wish. */
  async #askToShutDown(vmid: Vmid, options: Options): Promise<boolean> {
    if (agentOf(options).isEnabled) {
      try {
        await using agent = await this.agent(vmid)
        await agent.tell('guest-shutdown')
        return true
      } catch (fault) {
        this.#needs.log.info(`agent of VM ${vmid} cannot shut it down`, { reason: messageOf(fault) })
      }
    }
    await using monitor = await this.qmp(vmid)
    await monitor.execute('system_powerdown')
    return false
  }

  /** Pulls the plug. @throws Fault `conflict` 'VM 100 not running' */
  async stop(vmid: Vmid): Promise<void> {
    const { options } = await this.driver.requireRunning(vmid)
    await this.#hookAfter(vmid, options, 'pre-stop')
    await this.driver.stop(vmid)
    await this.#hookAfter(vmid, options, 'post-stop')
  }

  /** Presses the reset button. */
  async reset(vmid: Vmid): Promise<void> {
    await this.#command(vmid, 'system_reset')
  }

  /** Halts the processors; memory stays. */
  async suspend(vmid: Vmid): Promise<void> {
    await this.#command(vmid, 'stop')
  }

  async resume(vmid: Vmid): Promise<void> {
    await this.#command(vmid, 'cont')
  }

  async #command(vmid: Vmid, command: string): Promise<void> {
    await using monitor = await this.qmp(vmid)
    await monitor.execute(command)
  }

  /**
   * A control connection. QEMU serves one client on each monitor: keep `short` for questions, and use
   * `long` for jobs that stay connected.
   * @throws Fault `conflict` 'VM 100 not running'
   */
  async qmp(vmid: Vmid, which: keyof typeof qmpSockets = 'short', signal?: AbortSignal): Promise<QmpClient> {
    return this.driver.monitor(vmid, which, signal)
  }

  /** Helpers of the node send what they hold for the running guest along with its state, or no longer. */
  setStateBus(vmid: Vmid, isWanted: boolean): Promise<void> {
    return this.driver.setStateBus(vmid, isWanted)
  }

  /** @throws Fault `unavailable` when the guest has no agent, does not run, or its agent does not answer */
  async agent(vmid: Vmid): Promise<AgentClient> {
    const record = await this.driver.running(vmid)
    if (!record) throw new Fault('unavailable', `VM ${vmid} is not running`)
    if (!agentOf(record.options).isEnabled) {
      throw new Fault('unavailable', 'No QEMU guest agent configured', {
        remedy: `Install qemu-guest-agent in the guest, then: hako vm set ${vmid} --agent 1, and start it anew.`,
      })
    }
    const listener = this.driver.listenerOf(vmid, record)
    return AgentClient.connect(join(this.runDirOf(vmid), 'agent.sock'), { listener, random: this.#needs.random })
  }

  /** One agent command on a connection of its own. */
  async agentExecute<T = unknown>(
    vmid: Vmid,
    command: string,
    args: object = {},
    how: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<T> {
    await using agent = await this.agent(vmid)
    return await agent.execute<T>(command, args, how)
  }

  /**
   * After this program (re)starts: finds the guests that kept running meanwhile and removes what dead ones
   * left. Returns the running ones.
   */
  async adopt(): Promise<Vmid[]> {
    const records = await this.driver.records.all()
    for (const vmid of records) {
      if (await this.driver.reap(vmid, { waits: true })) this.#needs.log.info(`VM ${vmid} ended while nobody watched`)
    }
    return this.#runningOf(records)
  }

  /**
   * For a loop: removes what guests that ended by themselves left behind and returns them, and keeps the
   * logs of the others within their bound.
   */
  async reapDead(): Promise<Vmid[]> {
    const reaped: Vmid[] = []
    for (const vmid of await this.driver.records.all()) {
      if (await this.driver.reap(vmid)) {
        reaped.push(vmid)
        const ended = await this.documents.find(vmid)
        if (ended) await this.#hookAfter(vmid, ended.options, 'post-stop')
      } else await this.driver.boundLogs(vmid)
    }
    return reaped
  }

  /** Removes a stopped guest's leftovers; for operations that hold its lock. */
  async reap(vmid: Vmid): Promise<void> {
    await this.driver.reap(vmid, { waits: true })
  }

  async #runningOf(vmids: readonly Vmid[]): Promise<Vmid[]> {
    const running = await Promise.all(vmids.map((vmid) => this.isRunning(vmid)))
    return vmids.filter((_, position) => running[position])
  }

  async #describe(vmid: Vmid, document: GuestDocument, mayBeOld: boolean): Promise<GuestStatus> {
    const record = await this.driver.running(vmid)
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
      this.#needs.log.warn(`the hook script of VM ${vmid} failed`, { phase, reason: fault.message })
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
