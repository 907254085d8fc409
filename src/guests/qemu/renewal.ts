/**
 * A running guest goes on in a fresh QEMU process on the same node, without a stop: after an update of QEMU, or of what
 * a start makes of a guest.
 *
 * Invariant: the run record says which process the guest is in, and is replaced in one rename, while the guest stands
 * still in both. Before that the new process has never run an instruction of the guest, and whoever comes by ends it and
 * lets the guest go on in the old one; after that the old one never runs again, and whoever comes by ends that. So there
 * is never both and never none, whoever is killed when. A process that dies with the guest in it is a crash of the
 * guest, as at any other time, and takes the other with it.
 *
 * Who may run beside whom: callers hold the guest's lock. Who cleans up after a guest that died finds the new process by
 * its arguments, and its directory by its name.
 */
import { existsSync, renameSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import type { Host } from '#host/host.ts'
import { accelerator } from '#host/qemu/kvm.ts'
import { endProcess, isAlive, memoryCounters } from '#host/programs/proc.ts'
import type { QmpClient, QmpEvent } from '#host/qemu/qmp.ts'
import type { Options } from '../config.ts'
import type { GuestDevices, GuestNetwork, GuestStorage } from '../needs.ts'
import type { MachineRecord, ProcessName, RunRecords } from '../run-record.ts'
import { endOne } from './beside.ts'
import { birthplacesOf, bornIn, leftOf, makeBirthplace, removeBirthplaces } from './birthplace.ts'
import { qmpSockets } from './command-line.ts'
import type { Confinement } from './confinement.ts'
import { passingBitmaps } from './dirty-bitmap.ts'
import { lastWordsOf, untilMonitor } from './launch.ts'
import { type Accelerator, acceleratorFor, withMachine } from './machine.ts'
import {
  blockers,
  expectState,
  type MigrationProgress,
  sendState,
  sentOf,
  takeBack,
  untilArrived,
} from './migration.ts'
import { openMonitor, prepare, versionOf } from './monitor.ts'
import { type Obstacle, obstaclesIn } from './movable.ts'
import { type CabledCard, newProcess } from './new-process.ts'
import { findDevices } from './node-devices.ts'
import { requireMemory } from './room.ts'
import { spiceKeyFile } from './spice-tls.ts'
import { isOnBus } from './state-bus.ts'

export interface RenewalNeeds {
  readonly settings: { readonly cacheDir: string }
  readonly host: Host
  readonly storage: GuestStorage
  readonly network: GuestNetwork
  readonly devices?: GuestDevices
}

/** What of the driver it works on. */
export interface RenewalParts {
  readonly records: RunRecords
  readonly confinement: Confinement
  readonly runDirOf: (vmid: Vmid) => string
  readonly uidOf: (vmid: Vmid) => number
  readonly requireRunning: (vmid: Vmid) => Promise<MachineRecord>
  readonly monitor: (vmid: Vmid, which: keyof typeof qmpSockets, signal?: AbortSignal) => Promise<QmpClient>
}

/** A process that waits for the guest. */
export interface WaitingProcess extends ProcessName {
  readonly birthplace: string
  readonly taps: Readonly<Record<string, string>>
  readonly qemuVersion: string
  readonly spiceCertificate?: string
}

export interface RenewHow {
  readonly signal?: AbortSignal | undefined
  readonly log?: (line: string) => void
}

export interface MoveHow extends RenewHow {
  readonly onProgress?: (progress: MigrationProgress) => void
}

export interface Moved {
  /** From the guest's last instruction in the old process to its first in the new one. */
  readonly downtimeMs: number
  readonly sent: MigrationProgress | undefined
}

const startLimitMs = 30_000
/** Of a process that was killed, until nothing of it is left. */
const endLimitMs = 5_000
const [defaultDowntimeSeconds, smallestDowntimeMs] = [0.1, 10]

export class Renewals {
  readonly #needs: RenewalNeeds
  readonly #parts: RenewalParts

  constructor(needs: RenewalNeeds, parts: RenewalParts) {
    this.#needs = needs
    this.#parts = parts
  }

  /** What keeps the running guest where it is; nothing: it can be renewed. @throws Fault `conflict` when it does not run */
  async obstacles(vmid: Vmid): Promise<Obstacle[]> {
    const { options, netns } = await this.#parts.requireRunning(vmid)
    const found = obstaclesIn(options)
    if (netns !== '') {
      const remedy = 'Wait until the drill is over.'
      found.push({ what: 'the guest', reason: 'it runs in the network of a drill', remedy })
    }
    await using monitor = await this.#parts.monitor(vmid, 'short')
    if (await isOnBus(monitor)) {
      const remedy = 'End that first: POST dbus-vmstate with action=stop.'
      found.push({ what: 'dbus-vmstate', reason: 'helpers of the node hold a part of its state', remedy })
    }
    const { status } = await monitor.execute<{ status: string }>('query-status')
    if (status !== 'running') {
      const remedy = `Let it go on first: \`hako vm resume ${vmid}\`.`
      found.push({ what: 'the guest', reason: `it does not run but is '${status}'`, remedy })
    }
    if (found.length > 0) return found
    const remedy = 'Stop the guest and start it anew instead.'
    return (await blockers(monitor)).map((reason) => ({ what: 'QEMU', reason, remedy }))
  }

  /** @throws Fault `conflict` naming the first obstacle, and that there are others */
  async requireMovable(vmid: Vmid): Promise<void> {
    const [first, ...others] = await this.obstacles(vmid)
    if (!first) return
    const more = others.length === 0 ? '' : ` (and ${others.map(({ what }) => what).join(', ')})`
    const { what, reason, remedy } = first
    throw new Fault('conflict', `VM ${vmid} cannot be renewed while it runs: ${what}: ${reason}${more}`, { remedy })
  }

  /** Starts the process that is to take the guest over. Undone by `settle`. */
  async begin(vmid: Vmid, { signal, log = () => {} }: RenewHow = {}): Promise<WaitingProcess> {
    const { confinement, records, runDirOf, uidOf, requireRunning } = this.#parts
    const { options, machine, taps } = await requireRunning(vmid)
    requireMemory(vmid, options, await memoryCounters(), 'renew')
    const [accel, uid, runDir] = [await this.#acceleratorOf(options), uidOf(vmid), runDirOf(vmid)]
    const devices = await findDevices(vmid, options, { devices: this.#needs.devices, uid })
    // First of all: by it everything else is found.
    const birthplace = await makeBirthplace(runDir)
    await confinement.makeRoom(vmid, options, accel)
    const confine = (pid: number) => confinement.join(vmid, pid)
    const cards = await this.#plug(vmid, Object.keys(taps))
    const { process, spiceCertificate } = await newProcess({
      vmid,
      uid,
      options: withMachine(options, machine),
      runDir: birthplace,
      storage: this.#needs.storage,
      accelerator: accel,
      devices,
      cards,
      isIncoming: true,
      logsFrom: runDir,
      confine,
      timeoutMs: startLimitMs,
      signal,
    })
    await confine(process.pid)
    await using monitor = await untilMonitor(birthplace, { ...process, uid }, startLimitMs, signal)
    await rm(join(birthplace, spiceKeyFile), { force: true })
    await prepare(monitor, options)
    // Its guest may have ended meanwhile, and those who cleaned up have not seen this process.
    if (!(await records.running(vmid))) throw ended(vmid)
    const qemuVersion = await versionOf(monitor)
    log(`QEMU ${qemuVersion} waits for the guest as process ${process.pid}`)
    return {
      ...process,
      birthplace,
      taps: Object.fromEntries(cards.map(({ nic, tap }) => [nic, tap])),
      qemuVersion,
      ...(spiceCertificate === undefined ? {} : { spiceCertificate }),
    }
  }

  /**
   * Moves the guest. When it fails, or is aborted, `settle` says where the guest is, and sees that it goes on there.
   * @throws Fault `failed` saying why, `aborted`
   */
  async move(vmid: Vmid, waiting: WaitingProcess, how: MoveHow = {}): Promise<Moved> {
    const record = await this.#parts.requireRunning(vmid)
    const moved = await this.#tryMove(vmid, record, waiting, how)
    await this.#finish(vmid)
    return moved
  }

  async #tryMove(vmid: Vmid, record: MachineRecord, waiting: WaitingProcess, how: MoveHow): Promise<Moved> {
    try {
      return await this.#move(vmid, record, waiting, how)
    } catch (cause) {
      if (how.signal?.aborted || !isFault(cause)) throw cause
      // A line to a monitor that is cut off is that of a process that is ending, and may not be over.
      if (isFault(cause, 'unavailable')) await this.#untilEnded(vmid)
      // The process it is in by now has gone, whichever that is.
      if (!(await this.#parts.records.running(vmid))) throw ended(vmid, cause)
      const isThere = await isAlive(waiting.pid, waiting.startTime)
      const said = isThere ? messageOf(cause) : (await lastWordsOf(waiting.birthplace)).said
      throw new Fault('failed', `VM ${vmid} was not moved: ${said}`, { cause })
    }
  }

  async #untilEnded(vmid: Vmid): Promise<void> {
    const isOver = async () => !(await this.#parts.records.running(vmid))
    await waitFor(isOver, { what: `the end of VM ${vmid}`, timeoutMs: endLimitMs, everyMs: 10 }).catch(() => {})
  }

  async #move(vmid: Vmid, record: MachineRecord, waiting: WaitingProcess, how: MoveHow): Promise<Moved> {
    const { signal, onProgress, log = () => {} } = how
    await using source = await this.#parts.monitor(vmid, 'long', signal)
    const listener = { pid: waiting.pid, uid: this.#parts.uidOf(vmid) }
    await using target = await openMonitor(join(waiting.birthplace, qmpSockets.long), { listener, signal })
    const [stopped, resumed] = [lastOf(source, 'STOP'), lastOf(target, 'RESUME')]
    const socket = join(waiting.birthplace, 'state.sock')
    const bitmaps = await passingBitmaps(source)
    const arrived = untilArrived(target, signal)
    await expectState(target, socket, { bitmaps })
    const onLonger = (ms: number) =>
      log(`it changes its memory as fast as it is sent, and may stand still for ${ms} ms`)
    await sendState(source, socket, { ...paceOf(record.options), bitmaps, onProgress, onLonger, signal })
    await arrived
    await this.#needs.network.spares.use(vmid)
    signal?.throwIfAborted()
    await this.#takeOver(vmid, record, waiting, target)
    return { downtimeMs: Math.round((resumed.atUs() - stopped.atUs()) / 1000), sent: await sentOf(source) }
  }

  async #takeOver(vmid: Vmid, record: MachineRecord, waiting: WaitingProcess, target: QmpClient): Promise<void> {
    const { records } = this.#parts
    const { pid, startTime, birthplace, taps, qemuVersion, spiceCertificate } = waiting
    await records.write(vmid, {
      ...record,
      process: { pid, startTime },
      taps,
      qemuVersion,
      spiceCertificate,
      runsSince: record.runsSince ?? record.process.startTime,
      left: { ...record.process, birthplace },
    })
    try {
      await target.execute('cont')
    } catch (cause) {
      // Refused, so it has not run: an image it could not have, say. A process that is gone has said nothing.
      if (!isFault(cause, 'failed')) throw cause
      await endProcess(pid, startTime, { graceMs: 0 })
      await records.write(vmid, record)
      throw cause
    }
  }

  /** After the guest was moved: it has the directory, the cables and the limits of its own, and the old process is gone. */
  async #finish(vmid: Vmid): Promise<void> {
    const { records, runDirOf, confinement, monitor } = this.#parts
    const { left, ...record } = await this.#parts.requireRunning(vmid)
    if (!left) return
    const [runDir, old] = [runDirOf(vmid), leftOf(runDirOf(vmid))]
    if (existsSync(left.birthplace)) {
      if (existsSync(runDir)) renameSync(runDir, old)
      renameSync(left.birthplace, runDir)
    }
    await endProcess(left.pid, left.startTime, { graceMs: 0 })
    // Whoever moved it may have died before it went on.
    await using own = await monitor(vmid, 'short')
    if ((await own.execute<{ status: string }>('query-status')).status === 'paused') await own.execute('cont')
    await rm(old, { recursive: true, force: true })
    await this.#needs.network.spares.keep(vmid)
    await confinement.limit(vmid, record.options, await this.#acceleratorOf(record.options))
    await records.write(vmid, record)
  }

  /**
   * Ends whatever there is of a move, by looking at the world: where the guest was when this is called, there it goes
   * on, and nothing of the other process remains. May run twice, and when there is nothing.
   */
  async settle(vmid: Vmid): Promise<void> {
    const { records, runDirOf, confinement } = this.#parts
    const { network } = this.#needs
    const record = await records.running(vmid)
    if (record?.kind === 'qemu' && record.left) return this.#finish(vmid)
    const places = await birthplacesOf(runDirOf(vmid))
    await endAllIn(places)
    if (record?.kind === 'qemu') {
      await using source = await this.#parts.monitor(vmid, 'long')
      await takeBack(source)
      await confinement.limit(vmid, record.options, await this.#acceleratorOf(record.options))
      await network.spares.drop(vmid)
    } else {
      await confinement.remove(vmid)
      await network.unplug({ vmid })
    }
    await removeBirthplaces(runDirOf(vmid))
    // One that was about to become QEMU when its starter was killed: from now on it finds no place to start in.
    await endAllIn(places)
  }

  async #plug(vmid: Vmid, nics: readonly string[]): Promise<CabledCard[]> {
    const cards: CabledCard[] = []
    for (const nic of nics) cards.push({ nic, ...(await this.#needs.network.spares.plug(vmid, nic)) })
    return cards
  }

  async #acceleratorOf(options: Options): Promise<Accelerator> {
    const { host, settings } = this.#needs
    return acceleratorFor(options, (await accelerator({ host, cacheDir: settings.cacheDir })).accelerator)
  }
}

async function endAllIn(places: readonly string[]): Promise<void> {
  for (const place of places) for (const pid of await bornIn(place)) await endOne(pid)
}

function ended(vmid: Vmid, cause?: unknown): Fault {
  const remedy = `Start it again: \`hako vm start ${vmid}\`.`
  return new Fault('failed', `VM ${vmid} ended while it was to be moved`, { remedy, ...(cause ? { cause } : {}) })
}

function paceOf({ migrate_downtime: seconds, migrate_speed: speed }: Options) {
  const downtimeMs = Math.max(smallestDowntimeMs, Number(seconds ?? defaultDowntimeSeconds) * 1000)
  return { downtimeMs: Math.round(downtimeMs), bytesPerSecond: Number(speed ?? 0) * MiB }
}

/** When the last event of that name was, by the clock of the node. */
function lastOf(monitor: QmpClient, name: string): { readonly atUs: () => number } {
  let atUs = 0
  monitor.onEvent((event: QmpEvent) => {
    if (event.name === name) atUs = event.timestampUs
  })
  return { atUs: () => atUs }
}
