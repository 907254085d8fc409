/**
 * Makes a guest from a backup, or takes an existing one back to it (`force`).
 *
 * The backup is one of a datastore, or an archive another platform made.
 *
 * Nothing of an existing guest is touched before the new disks are whole. Then the disks they replace are
 * set aside, and erased once the task has succeeded; until then everything can be taken back. What becomes of the rest
 * of that guest is in `replaced-guest.ts`.
 */
import { rateOfLimit } from '#base/bytes.ts'
import { type Fault, invalid, messageOf } from '#base/fault.ts'
import { asVmid, asVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { type Filling, isTemplate, type Options } from '#guests/config.ts'
import { volumesIn } from '#guests/qemu/drive.ts'
import { mappingOf } from '#guests/qemu/mapped.ts'
import { completed, qemuVersion, requireOptions, unique } from '#guests/qemu/new-guest.ts'
import { isRootOnly } from '#guests/qemu/options.ts'
import type { Services } from '#services.ts'
import { operation, type StepContext } from '#tasks/operation.ts'
import { isForeignArchive } from '../backup/archive-file.ts'
import type { RestoredDrive } from '../backup/foreign-options.ts'
import { restoreArchive } from '../backup/restore-archive.ts'
import { storedOptions } from '../backup/guest-conf.ts'
import { optionsWithVolumes, restoreDisks } from '../backup/restore-disks.ts'
import { goneCloudInits, ownCloudInits } from './cloud-init-drive.ts'
import { sayMissingBridges } from './missing-bridges.ts'
import { sayTwins } from './twins.ts'
import { aboutOneGuest } from './one-guest.ts'
import {
  bringBackConfig,
  dropForgotten,
  freeMade,
  intoItsPool,
  keptOf,
  placeOf,
  type ReplacedGuest,
  withKept,
  writeInPlace,
} from './replaced-guest.ts'
import { bringBackAll, eraseAll, setAsideAll } from './volumes.ts'

export interface RestoreGuest {
  readonly vmid: number
  /**
   * Volume id of the backup: `local:backup/vm/100/2026-11-20T10:00:00Z`, or of an archive; for root also the path
   * of an archive.
   */
  readonly archive: string
  /** Where the disks go; without one, each where it was. */
  readonly storage?: string | undefined
  /** Replace a guest that has this id. */
  readonly force?: boolean | undefined
  /** New MAC addresses, UUID and generation id. */
  readonly unique?: boolean | undefined
  /** Pool to put it in; without one it stays where it was. */
  readonly pool?: string | undefined
  readonly start?: boolean | undefined
  /** Start it at once; its disks come while it runs. */
  readonly isLive?: boolean | undefined
  /** KiB per second; 0 for no limit. */
  readonly bwlimit?: number | undefined
  /** Options that differ from the backup's. */
  readonly overrides?: Options | undefined
}

export type RestoreGuestDeps = Pick<
  Services,
  'settings' | 'clock' | 'random' | 'host' | 'guests' | 'storage' | 'backup' | 'pools'
>

export const restoreGuest = operation<RestoreGuest, RestoreGuestDeps>('qmrestore', aboutOneGuest)
  .step('reservation', placeOf('qemu'))
  .step('erasure', {
    do: () => {},
    // After success this is the deed itself. After a failure nothing is set aside any more, and the guest has its snapshots.
    async undo({ params, deps, done, task }) {
      await eraseAll(deps.storage, replacedIn(done), task.upid)
      const vmid = asVmid(params.vmid)
      await dropForgotten(deps, vmid, done.reservation ?? {}, keptIn(vmid, done))
    },
    always: true,
  })
  .step('disks', {
    async do(context) {
      const { params, deps, log } = context
      const restored = await (isForeignArchive(params.archive) ? fromArchive(context) : fromBackup(context))
      const drives = { ...restored.options, ...params.overrides }
      const place = { vmid: asVmid(params.vmid), storage: deps.storage, log }
      return { ...restored, cloudInit: await ownCloudInits(drives, params.storage, place) }
    },
    undo: freeMade,
  })
  .step('old-disks', {
    do: ({ deps, done, task, log, warn }) =>
      setAsideAll(deps.storage, replacedIn(done), { upid: task.upid, log, warn }),
    undo: ({ deps, done, task }) => bringBackAll(deps.storage, replacedIn(done), task.upid),
  })
  .step('config', {
    async do(context) {
      const { params, deps, done, task, log, warn } = context
      const stored = withKept(done.disks.options, keptIn(asVmid(params.vmid), done))
      const allowed = task.user === 'root@pam' ? stored : withoutRootOnly(stored, warn)
      const restored = { ...allowed, ...params.overrides, ...done.disks.cloudInit }
      const own = params.unique ? unique(restored, deps.random) : restored
      const options = await asNewGuest(own, deps)
      await writeInPlace(context, options)
      if (done.disks.later.length > 0) {
        await deps.guests.setFilling(asVmid(params.vmid), fillingOf(context, done.disks.later))
      }
      await sayMissingBridges(deps.guests, options, log)
      await sayTwins(deps.guests, { vmid: asVmid(params.vmid), kind: 'qemu', options }, log)
    },
    async undo({ params, deps, done }) {
      const vmid = asVmid(params.vmid)
      if (await deps.guests.exists(vmid)) await deps.guests.setFilling(vmid, undefined)
      await bringBackConfig(deps, vmid, done.reservation ?? {})
    },
  })
  .step('pool', intoItsPool)
  .step('start', {
    async do(context) {
      const { params, deps, log, warn, signal, task } = context
      if (params.start !== true && params.isLive !== true) return
      try {
        await deps.guests.start(asVmid(params.vmid), { startedBy: task.upid, log, signal })
        if (params.isLive === true) log('the guest runs; its disks are copied meanwhile by a task of its own')
      } catch (fault) {
        if (signal.aborted || params.isLive === true) throw fault
        warn(`start failed: ${messageOf(fault)}`)
      }
    },
    undo: ({ params, deps, task }) => deps.guests.undoStart(asVmid(params.vmid), task.upid),
  })

type RestoreContext = StepContext<RestoreGuest, RestoreGuestDeps, unknown>
type Restored = {
  readonly disks: readonly RestoredDrive[]
  readonly options: Record<string, string>
  /** Drives that are still empty. */
  readonly later: readonly string[]
}

async function fromBackup({ params, deps, log, warn, progress, signal }: RestoreContext): Promise<Restored> {
  await using reader = await deps.backup.open(asVolumeId(params.archive))
  if (reader.head.point.type !== 'vm') {
    throw invalid({ archive: `'${params.archive}' is the backup of a container, not of a virtual machine` })
  }
  log(`restoring ${params.archive} (data from ${reader.manifest.pointInTime})`)
  const {
    disks: whole,
    later,
    fetchMs,
    writeMs,
  } = await restoreDisks({
    reader,
    vmid: asVmid(params.vmid),
    storage: params.storage,
    isLive: params.isLive,
    services: deps,
    rateBytesPerSecond: rateOfLimit(params.bwlimit),
    log,
    signal,
    onProgress: (drive, fraction, doneBytes) => progress(`write ${drive}`, fraction, doneBytes),
  })
  log(`fetched in ${fetchMs} ms, written in ${writeMs} ms`)
  const stored = await storedOptions(reader)
  if (isTemplate(stored)) warn('the guest was a template and is an ordinary guest now')
  const disks = [...whole, ...later]
  return { disks, options: optionsWithVolumes(stored, disks), later: later.map(({ drive }) => drive) }
}

/** What its disks lack when the task is done: nothing, unless it is live. */
function fillingOf({ params, task }: RestoreContext, drives: readonly string[]): Filling {
  const { archive, bwlimit } = params
  return { from: asVolumeId(archive), by: task.user, drives, bytesPerSecond: rateOfLimit(bwlimit) ?? 0 }
}

async function fromArchive({ params, deps, log, warn, progress, signal }: RestoreContext): Promise<Restored> {
  const { archive, vmid, storage } = params
  if (params.isLive === true) throw onlyFromBackup()
  const restored = await restoreArchive({
    archive,
    vmid: asVmid(vmid),
    storage,
    services: deps,
    rateBytesPerSecond: rateOfLimit(params.bwlimit),
    log,
    warn,
    signal,
    onProgress: (fraction) => progress('write', fraction),
  })
  return { ...restored, later: [] }
}

export function onlyFromBackup(): Fault {
  return invalid(
    {
      'live-restore': 'only from a backup of a datastore: an archive is read from its beginning to its end',
    },
    { remedy: 'Leave it out, and use start to run the guest when it is whole.' },
  )
}

interface SoFar {
  readonly reservation?: ReplacedGuest
  readonly disks?: { readonly disks: readonly RestoredDrive[]; readonly cloudInit: Options }
}

/** Old disks that a restored one takes the place of, and a cloud-init drive the restored guest has no use for. */
function replacedIn({ reservation, disks }: SoFar): VolumeId[] {
  const old = reservation?.old ?? {}
  const restored = new Set(disks?.disks.map(({ drive }) => drive))
  const replaced = volumesIn(old).flatMap(({ name, volid }) => (restored.has(name) ? [volid] : []))
  return disks ? [...replaced, ...goneCloudInits(old, disks.cloudInit)] : replaced
}

/** Old disks of which the backup knows nothing. */
function keptIn(vmid: Vmid, done: SoFar): VolumeId[] {
  return keptOf(vmid, done.reservation ?? {}, { replaced: replacedIn(done), volumesIn })
}

/** What root alone may set, and what takes a right to use, must not come to a guest by way of a restore. */
function withoutRootOnly(options: Options, warn: (line: string) => void): Options {
  const isMapped = (name: string) => mappingOf(name, options[name] ?? '') !== undefined
  const dropped = Object.keys(options).filter((name) => isRootOnly(name, options[name]) || isMapped(name))
  for (const name of dropped) {
    warn(`${name} is left out: ${isMapped(name) ? 'set it again, if you may use its mapping' : 'only root can set it'}`)
  }
  return Object.fromEntries(Object.entries(options).filter(([name]) => !dropped.includes(name)))
}

/** Unused disks are not for a new guest to have, but a restore may bring them. */
async function asNewGuest(options: Options, deps: RestoreGuestDeps): Promise<Options> {
  const isUnused = (name: string) => /^unused\d+$/.test(name)
  const rest = Object.fromEntries(Object.entries(options).filter(([name]) => !isUnused(name)))
  const unused = Object.fromEntries(Object.entries(options).filter(([name]) => isUnused(name)))
  const provenance = { random: deps.random, clock: deps.clock, qemuVersion: await qemuVersion(deps.host) }
  return { ...completed(requireOptions(rest), provenance), ...unused }
}
