/**
 * The disks of one guest as block sources, all of one moment, and the way back afterwards.
 *
 * A running guest is read through QEMU while it goes on; a stopped one from its files, without ever
 * booting it.
 */
import { join } from 'node:path'
import { Fault, messageOf } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import type { BlockSource } from '#datastore/backup/block-source.ts'
import { fileSource } from '#datastore/backup/source/file.ts'
import { memorySource } from '#datastore/backup/source/memory.ts'
import { nbdSource } from '#datastore/backup/source/nbd.ts'
import type { Options } from '#guests/config.ts'
import { agentOf } from '#guests/qemu/agent.ts'
import { isFirmwareDrive } from '#guests/qemu/drive.ts'
import type { GuestService } from '#guests/service.ts'
import { openImage } from '#host/nbd/nbd-server.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import type { Services } from '#services.ts'
import type { BackupInMaking, DiskRecord } from './change-records.ts'
import { makeFleecing, removeFleecing } from './fleecing.ts'
import { type FreezeVerdict, thaw, whileFrozen } from './freeze.ts'
import type { GuestDisk } from './guest-disks.ts'
import { isTpm, readTpmStates } from './tpm-state.ts'
import { heldSource } from './held-source.ts'
import {
  copiedName,
  exportDisks,
  insertFilters,
  markFrozen,
  prepareFilters,
  readRecordOf,
  tearDown,
  unmarkFrozen,
} from './point-in-time.ts'
import { LiveRecording, StoredRecording } from './recording.ts'

export type SourceDeps = Pick<Services, 'settings' | 'clock' | 'random' | 'host' | 'guests' | 'storage'>

export interface GuestMoment extends AsyncDisposable {
  /** Milliseconds since 1970: what the disks hold is from then. */
  readonly takenMs: number
  readonly freeze: FreezeVerdict
  /** How long the processors were held. */
  readonly heldMs: number
  /** The caller disposes of the source. */
  readonly open: (drive: string) => Promise<BlockSource>
  /** Of a disk that is open. */
  readonly recordOf: (drive: string) => DiskRecord
  /** The backup is committed: records of changes that begin with it are kept, and those it was read by are not. */
  readonly keepRecords: () => Promise<void>
}

export interface MomentOptions {
  readonly vmid: Vmid
  readonly disks: readonly GuestDisk[]
  /** Of the guest as it runs. */
  readonly options: Options
  /** Hold the processors at the moment, also with a single disk. */
  readonly holds?: boolean
  readonly fleecingStorage?: string | undefined
  /** What changes are recorded for. Absent: they are not. */
  readonly backup?: BackupInMaking | undefined
  readonly signal: AbortSignal
}

const socketName = 'backup-nbd.sock'

/** Holds one moment of a running guest. Disposing of it takes everything out again. */
export async function runningMoment(deps: SourceDeps, options: MomentOptions): Promise<GuestMoment> {
  const { vmid, disks, signal } = options
  const { guests, clock } = deps
  await using undo = new AsyncDisposableStack()
  undo.defer(() => leaveGuest(deps, vmid))
  // QEMU does not have a TPM's state open.
  const held = await makeFleecing(
    deps,
    vmid,
    disks.filter((disk) => !isTpm(disk)),
    options.fleecingStorage,
  )
  let states: ReadonlyMap<string, Buffer> = new Map()
  const listener = await guests.listenerOf(vmid)
  const socket = join(guests.runDirOf(vmid), socketName)
  await using monitor = await guests.qmp(vmid, 'long', signal)
  await prepareFilters(monitor, held)
  const drives = held.map(({ drive }) => drive)
  const records = options.backup && (await LiveRecording.prepare(monitor, drives, options.backup, deps.random))
  let areKept = false
  if (records) {
    undo.defer(async () => {
      if (!areKept) await whileRunning(guests, vmid, (again) => records.forget(again))
    })
  }
  const isWanted = isFreezeWanted(options.options)
  if (isWanted) await markFrozen(monitor)
  const { result, verdict } = await whileFrozen({ guests, vmid, isWanted }, async () => {
    await records?.start(monitor)
    const holds = (options.holds ?? false) || disks.some(isTpm)
    const { heldMs } = await insertFilters(monitor, held, holds, async () => {
      states = await readTpmStates(deps, disks)
    })
    return { takenMs: clock.now(), heldMs }
  })
  if (isWanted) await unmarkFrozen(monitor)
  await records?.hold(monitor)
  const recordOf = (drive: string): DiskRecord => records?.of(drive) ?? {}
  await exportDisks(monitor, held, socket, (drive) => recordOf(drive).since !== undefined)
  const release = undo.move()
  return {
    ...result,
    freeze: verdict,
    open: async (drive) => {
      const state = states.get(drive)
      if (state) return memorySource(state)
      const bitmap = recordOf(drive).since && readRecordOf(drive)
      const names = { moment: drive, copied: copiedName(drive) }
      return await heldSource(socket, names, { listener, bitmap, signal }).catch((cause: unknown) => {
        throw new Fault('unavailable', `disk ${drive} of VM ${vmid} cannot be read: ${messageOf(cause)}`, { cause })
      })
    },
    recordOf,
    async keepRecords() {
      areKept = true
      if (records) await whileRunning(guests, vmid, (again) => records.keep(again))
    },
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}

function isFreezeWanted(options: Options): boolean {
  const { isEnabled, freezes } = agentOf(options)
  return isEnabled && freezes
}

/**
 * A stopped guest, which stays so: the caller holds its lock.
 * @param begins records of changes may be begun in its images; else nothing is written to them
 */
export function stoppedMoment(
  deps: SourceDeps,
  { vmid, disks, backup, signal }: MomentOptions,
  { begins = false }: { readonly begins?: boolean } = {},
): GuestMoment {
  const { host, random, settings } = deps
  const records = new Map<string, StoredRecording>()
  let areKept = false
  return {
    takenMs: deps.clock.now(),
    freeze: { state: 'not-frozen', reason: 'the guest is stopped' },
    heldMs: 0,
    async open(drive) {
      const disk = disks.find((one) => one.drive === drive)
      if (!disk) throw new Error(`disk ${drive} is not among those to be read`)
      const state = (await readTpmStates(deps, [disk])).get(drive)
      if (state) return memorySource(state)
      // A linked clone consists of its own file and the template's below it.
      const [{ path, format }, ...backing] = (await deps.storage.layers(disk.volid)).layers
      if (format === 'raw') return fileSource(path, host)
      const recording =
        backup && !isFirmwareDrive(drive)
          ? await StoredRecording.open(host, { path, format }, backup, { disk: drive, random, begins })
          : undefined
      if (recording) records.set(drive, recording)
      const socket = join(settings.runDir, `backup-${vmid}-${drive}.sock`)
      const bitmap = recording?.record.since?.record
      const image = await openImage(host, { path, format, backing, isReadOnly: true, bitmap, socket, signal })
      return { ...nbdSource(image.client), [Symbol.asyncDispose]: () => image[Symbol.asyncDispose]() }
    },
    recordOf: (drive) => records.get(drive)?.record ?? {},
    async keepRecords() {
      areKept = true
      for (const record of records.values()) await record.keep()
    },
    async [Symbol.asyncDispose]() {
      if (!areKept) for (const record of records.values()) await record.forget()
    },
  }
}

/** Takes out of a guest whatever a backup put in; harmless when there is nothing, and when it has stopped. */
export async function leaveGuest(deps: Pick<SourceDeps, 'guests' | 'storage'>, vmid: Vmid): Promise<void> {
  const { guests } = deps
  await whileRunning(guests, vmid, (monitor) => tearDown(monitor, () => thaw(guests, vmid)))
  await removeFleecing(deps, vmid)
}

/** Does nothing for a guest that does not run; it may also end while somebody talks to it. */
async function whileRunning(
  guests: GuestService,
  vmid: Vmid,
  act: (monitor: QmpClient) => Promise<void>,
): Promise<void> {
  if (!(await guests.isRunning(vmid))) return
  try {
    await using monitor = await guests.qmp(vmid, 'long')
    await act(monitor)
  } catch (cause) {
    if (await guests.isRunning(vmid)) throw cause
  }
}
