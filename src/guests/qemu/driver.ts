/**
 * The life of a virtual machine's process: start, stop, and everything in between.
 *
 * Invariants: what a start makes (descriptors, taps, run directory, control group, process) is covered by
 * a run record from before it is made until after it is gone, so `reap` can always find it. A guest's
 * process is known by pid and start time, never by pid alone. Nothing here reads or writes configurations.
 * The rejected way is to be the parent of QEMU: a guest must survive the death of whoever started it.
 */
import { closeSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import type { Errors } from '#base/schema/check.ts'
import type { DiskServerProgram } from '#host/nbd/disk-server.ts'
import type { Host } from '#host/host.ts'
import { accelerator } from '#host/qemu/kvm.ts'
import { memoryCounters, startTimeOf } from '#host/programs/proc.ts'
import type { QmpClient, QmpOptions } from '#host/qemu/qmp.ts'
import type { Listener } from '#host/programs/unix-peer.ts'
import { onlineProcessors } from '#host/system/topology.ts'
import type { Options } from '../config.ts'
import { isOn } from '../config.ts'
import type { StartOptions } from '../guest.ts'
import type { Mark } from '#store/mark.ts'
import type { GuestDevices, GuestNetwork, GuestStorage } from '../needs.ts'
import { endOne, forgetBeside } from './beside.ts'
import { processesOf, removeBirthplaces } from './birthplace.ts'
import type { GuestDriver } from '../driver.ts'
import type { MachineRecord, RunRecord, RunRecords } from '../run-record.ts'
import { qmpSockets } from './command-line.ts'
import { Confinement } from './confinement.ts'
import type { Drive } from './drive.ts'
import { untilMonitor } from './launch.ts'
import { DiskServers } from './disk-server.ts'
import { type EndingParts, Endings } from './ending.ts'
import { forgetKeptBitmaps, putBitmapsBack } from './kept-bitmaps.ts'
import { doLive, present } from './live.ts'
import { planLive } from './live-plan.ts'
import { acceleratorFor, withMachine } from './machine.ts'
import { changeMedium } from './medium.ts'
import { loadMemory } from './snapshot.ts'
import { boundLogs, keepLogs } from './log-files.ts'
import { machineOf, openMonitor, prepare, versionOf } from './monitor.ts'
import { type CabledCard, newProcess } from './new-process.ts'
import { nicsOf } from './nic.ts'
import { findDevices } from './node-devices.ts'
import { openDisc } from './open-drives.ts'
import { Renewals } from './renewal.ts'
import { requireMemory } from './room.ts'
import { spiceKeyFile } from './spice-tls.ts'
import { setStateBus } from './state-bus.ts'

export interface DriverNeeds {
  readonly settings: {
    readonly instance: string
    readonly runDir: string
    readonly cacheDir: string
    readonly uidBase: number
  }
  readonly clock: Clock
  /** Its mark is touched whenever a guest starts or ends. */
  readonly store: { readonly mark: Pick<Mark, 'touch'> }
  readonly host: Host
  readonly log: Log
  readonly storage: GuestStorage
  readonly network: GuestNetwork
  /** Absent: nothing was given a name. */
  readonly devices?: GuestDevices
  /** Serves what disks lack. Absent: none lacks anything. */
  readonly diskServer?: DiskServerProgram
}

const startLimitMs = 30_000

export class QemuDriver implements GuestDriver {
  readonly #needs: DriverNeeds
  readonly records: RunRecords
  readonly below: DiskServers
  readonly renewals: Renewals
  readonly endings: Endings
  readonly #confinement: Confinement

  constructor(needs: DriverNeeds, records: RunRecords) {
    this.#needs = needs
    this.records = records
    this.below = new DiskServers(needs)
    this.#confinement = new Confinement(needs.settings.instance, needs.log)
    const [runDirOf, uidOf] = [(vmid: Vmid) => this.runDirOf(vmid), (vmid: Vmid) => this.uidOf(vmid)]
    this.renewals = new Renewals(needs, {
      records,
      confinement: this.#confinement,
      runDirOf,
      uidOf,
      requireRunning: (vmid) => this.requireRunning(vmid),
      monitor: (vmid, which, signal) => this.monitor(vmid, which, signal),
    })
    const monitorOf: EndingParts['monitorOf'] = (...about) => this.monitorOf(...about)
    this.endings = new Endings(needs, { records, runDirOf, uidOf, monitorOf })
  }

  runDirOf(vmid: Vmid): string {
    return join(this.#needs.settings.runDir, 'guests', String(vmid))
  }

  groupOf(vmid: Vmid): string {
    return this.#confinement.groupOf(vmid)
  }

  uidOf(vmid: Vmid): number {
    return this.#needs.settings.uidBase + vmid
  }

  async running(vmid: Vmid): Promise<MachineRecord | undefined> {
    const record = await this.records.running(vmid)
    return record?.kind === 'qemu' ? record : undefined
  }

  /** @throws Fault `conflict` 'VM 100 not running' */
  async requireRunning(vmid: Vmid): Promise<MachineRecord> {
    const record = await this.running(vmid)
    if (!record) throw new Fault('conflict', `VM ${vmid} not running`)
    return record
  }

  /**
   * Starts the guest and returns once its processors run. On failure, and on abort, nothing remains.
   * @throws Fault `conflict` when it runs, `failed` with QEMU's words when it does not start
   */
  async start(vmid: Vmid, options: Options, how: StartOptions = {}): Promise<void> {
    await this.reap(vmid, { waits: true })
    const starter = { pid: process.pid, startTime: (await startTimeOf(process.pid)) ?? 0 }
    const { startedBy = '', netns = '' } = how
    await this.records.begin(vmid, { state: 'starting', kind: 'qemu', starter, startedBy, netns })
    try {
      await this.#start(vmid, options, how)
    } catch (fault) {
      await this.#cleanUp(vmid, how.netns)
      await this.records.remove(vmid)
      throw fault
    }
  }

  async #start(vmid: Vmid, options: Options, how: StartOptions): Promise<void> {
    const { host, settings } = this.#needs
    const { log = () => {}, signal, timeoutMs = startLimitMs } = how
    requireMemory(vmid, options, await memoryCounters())
    const verdict = await accelerator({ host, cacheDir: settings.cacheDir })
    const accel = acceleratorFor(options, verdict.accelerator)
    if (accel === 'tcg') log('no usable hardware virtualization, using software emulation')
    const uid = this.uidOf(vmid)
    const devices = await findDevices(vmid, options, { devices: this.#needs.devices, uid })
    const below = how.filling ? await this.below.serve(vmid, how.filling, { timeoutMs, signal }) : {}
    const cards = await this.#plug(vmid, options, how)
    const runDir = this.runDirOf(vmid)
    const { process, spiceCertificate } = await newProcess({
      vmid,
      uid,
      options: how.memory ? withMachine(options, how.memory.machine) : options,
      runDir,
      storage: this.#needs.storage,
      accelerator: accel,
      devices,
      cards,
      below,
      netns: how.netns,
      confine: (pid) => this.#confinement.hold(vmid, options, accel, pid),
      timeoutMs,
      signal,
    })
    await this.#confinement.hold(vmid, options, accel, process.pid)
    await using monitor = await untilMonitor(runDir, { ...process, uid }, timeoutMs, signal)
    await rm(join(runDir, spiceKeyFile), { force: true })
    await prepare(monitor, options)
    await this.#unplugOthers(monitor, options, how.onlyNics)
    await this.#goOnRecording(vmid, monitor, options, how)
    if (how.memory) await loadMemory(monitor, options, how.memory, { storage: this.#needs.storage, uid, signal })
    const [machine, qemuVersion] = [await machineOf(monitor), await versionOf(monitor)]
    signal?.throwIfAborted()
    if (!isOn(options.freeze, false)) await monitor.execute('cont')
    await this.records.write(vmid, {
      state: 'running',
      kind: 'qemu',
      process,
      startedBy: how.startedBy ?? '',
      options,
      machine,
      qemuVersion,
      netns: how.netns ?? '',
      taps: Object.fromEntries(cards.map(({ nic, tap }) => [nic, tap])),
      spiceCertificate,
    })
    log(`started as process ${process.pid}`)
  }

  /** Before its first instruction: what the guest wrote until its last one goes on being recorded. */
  async #goOnRecording(vmid: Vmid, monitor: QmpClient, options: Options, how: StartOptions): Promise<void> {
    const { storage, log } = this.#needs
    const place = { runDir: this.runDirOf(vmid), uid: this.uidOf(vmid), options, storage }
    // With memory, or without all of its content, a disk is not the one it was.
    if (how.memory || how.filling) return forgetKeptBitmaps(place.runDir)
    const onFailure = (drive: string, cause: unknown) =>
      log.warn(`records of changes of VM ${vmid} do not go on`, { drive, reason: messageOf(cause) })
    const drives = await putBitmapsBack(monitor, place, onFailure)
    if (drives.length > 0) how.log?.(`what is written to ${drives.join(', ')} goes on being recorded`)
  }

  /** Puts another disc into a drive of the running guest. */
  async changeMedium(vmid: Vmid, drive: Drive, volid: VolumeId): Promise<void> {
    const file = await openDisc(volid, { storage: this.#needs.storage, uid: this.uidOf(vmid) })
    await using monitor = await this.monitor(vmid, 'long')
    await changeMedium(monitor, drive, file)
  }

  async #plug(vmid: Vmid, options: Options, how: StartOptions): Promise<CabledCard[]> {
    const cards: CabledCard[] = []
    try {
      for (const { name, mac, bridge: own, tag, trunks, rate } of nicsOf(options)) {
        const bridge = how.bridge ?? own
        if (bridge === undefined) continue
        // A bridge that stands in for the card's own has none of its VLANs.
        const place =
          how.netns !== undefined ? { netns: how.netns } : how.bridge === undefined ? { tag, trunks, rate } : {}
        cards.push({ nic: name, ...(await this.#needs.network.plug({ vmid, nic: name, mac, bridge, ...place })) })
      }
      return cards
    } catch (fault) {
      for (const { fd } of cards) closeSync(fd)
      throw fault
    }
  }

  async #unplugOthers(monitor: QmpClient, options: Options, only: readonly string[] | undefined): Promise<void> {
    if (only === undefined) return
    for (const { name } of nicsOf(options)) {
      if (!only.includes(name)) await monitor.execute('set_link', { name, up: false })
    }
  }

  /** A monitor of the running guest. `long` is for jobs: `short` must stay free for questions. */
  async monitor(vmid: Vmid, which: keyof typeof qmpSockets = 'short', signal?: AbortSignal): Promise<QmpClient> {
    return this.monitorOf(vmid, await this.requireRunning(vmid), which, { signal })
  }

  monitorOf(
    vmid: Vmid,
    record: MachineRecord,
    which: keyof typeof qmpSockets,
    options: QmpOptions = {},
  ): Promise<QmpClient> {
    const listener = this.listenerOf(vmid, record)
    return openMonitor(join(this.runDirOf(vmid), qmpSockets[which]), { ...options, listener })
  }

  /** Who must be found at the sockets in the guest's run directory, which its QEMU may put others into. */
  listenerOf(vmid: Vmid, { process: { pid } }: MachineRecord): Listener {
    return { pid, uid: this.uidOf(vmid) }
  }

  /**
   * Makes of the running guest what is wanted, as far as that goes without a restart. What went in force is written
   * down act by act.
   * @returns the options it failed at, each with the reason; they stay as they were
   */
  async changeLive(
    vmid: Vmid,
    wanted: Options,
    { signal, log = () => {} }: { readonly signal?: AbortSignal; readonly log?: (line: string) => void } = {},
  ): Promise<Errors> {
    let record = await this.running(vmid)
    if (!record) return {}
    const { storage, network, host } = this.#needs
    await using monitor = await this.monitor(vmid, 'long', signal)
    const taps: Record<string, string> = { ...record.taps }
    const { pid } = record.process
    const context = {
      vmid,
      uid: this.uidOf(vmid),
      monitor,
      storage,
      network,
      signal,
      netns: netnsOf(record),
      setShares: (options: Options) => this.#limit(vmid, options),
      setAffinity: async (list = '') => {
        const processors = list === '' ? await onlineProcessors() : list
        await host.run(['taskset', '--all-tasks', '--cpu-list', '--pid', processors, String(pid)])
      },
      onTap: (nic: string, tap = '') => {
        if (tap === '') delete taps[nic]
        else taps[nic] = tap
      },
    }
    const errors: Errors = {}
    for (const act of planLive(record.options, wanted, await present(monitor))) {
      const { name, value, kind } = act
      if (errors[name] !== undefined) continue
      try {
        await doLive({ ...context, running: record.options }, act)
      } catch (fault) {
        if (signal?.aborted || !isFault(fault)) throw fault
        errors[name] = `hotplug problem - ${fault.message}`
        continue
      }
      const { [name]: _, ...rest } = record.options
      record = { ...record, taps, options: value === undefined ? rest : { ...rest, [name]: value } }
      await this.records.write(vmid, record)
      if (kind !== 'nothing') log(`${name}: changed while the guest runs`)
    }
    return errors
  }

  async #limit(vmid: Vmid, options: Options): Promise<void> {
    const { host, settings } = this.#needs
    const verdict = await accelerator({ host, cacheDir: settings.cacheDir })
    await this.#confinement.limit(vmid, options, acceleratorFor(options, verdict.accelerator))
  }

  /** Lets helpers of the node send what they hold for the running guest along with its state, or ends that. */
  async setStateBus(vmid: Vmid, isWanted: boolean): Promise<void> {
    await using monitor = await this.monitor(vmid)
    const confine = (pid: number) => this.#confinement.join(vmid, pid)
    const place = { host: this.#needs.host, runDir: this.runDirOf(vmid), uid: this.uidOf(vmid), confine }
    await setStateBus(monitor, place, isWanted)
  }

  /** Pulls the plug, and cleans up. */
  async stop(vmid: Vmid, limitMs?: number): Promise<void> {
    const record = await this.requireRunning(vmid)
    await this.endings.end(vmid, record, limitMs)
    await this.reap(vmid, { waits: true })
  }

  /** Removes what a guest that ended, or whose start was killed, left behind. True when there was something; else harmless. */
  async reap(vmid: Vmid, how: { readonly waits?: boolean } = {}): Promise<boolean> {
    const claimed = await this.records.claim(vmid)
    const record = claimed ?? (how.waits === true ? await this.records.abandoned(vmid) : undefined)
    if (record === undefined) return false
    await this.#cleanUp(vmid, netnsOf(record))
    await this.records.finish(vmid)
    return true
  }

  async #cleanUp(vmid: Vmid, netns: string | undefined): Promise<void> {
    for (const pid of await this.processesOf(vmid)) await endOne(pid)
    await this.below.end(vmid)
    await this.#confinement.remove(vmid)
    await this.#needs.network.unplug({ vmid, ...(netns === undefined ? {} : { netns }) })
    await forgetBeside(this.runDirOf(vmid))
    await removeBirthplaces(this.runDirOf(vmid))
    await keepLogs(this.runDirOf(vmid))
  }

  /** Removes the logs a stopped guest left, when the guest itself goes. */
  async forget(vmid: Vmid): Promise<void> {
    await this.reap(vmid, { waits: true })
    if (await this.records.alive(vmid)) return
    // A machine that was off has lost the run record, and with it what would have led to the guest's taps.
    await this.#needs.network.unplug({ vmid })
    await forgetKeptBitmaps(this.runDirOf(vmid))
    await rm(this.runDirOf(vmid), { recursive: true, force: true })
  }

  /** Keeps the logs of running guests within their bound: what a guest prints must not fill the node's disk. */
  async boundLogs(vmid: Vmid): Promise<void> {
    await boundLogs(this.runDirOf(vmid), this.uidOf(vmid))
  }

  /** Pids of QEMUs that serve this guest's monitor, and of the programs beside them, whoever remembers them. */
  async processesOf(vmid: Vmid): Promise<number[]> {
    return processesOf(this.runDirOf(vmid))
  }
}

function netnsOf(record: RunRecord | 'unreadable'): string | undefined {
  return record !== 'unreadable' && record.netns !== '' ? record.netns : undefined
}
