/**
 * Makes a guest from a backup, or takes an existing one back to it (`force`).
 *
 * Nothing of an existing guest is touched before the new disks are whole. Then the disks they replace are
 * set aside, and erased once the task has succeeded; until then everything can be taken back. Disks the
 * backup does not hold are kept, as unused ones.
 */
import { Fault, messageOf } from '#base/fault.ts'
import { asVmid, asVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { volumesIn } from '#guests/qemu/drive.ts'
import { completed, qemuVersion, requireOptions, unique } from '#guests/qemu/new-guest.ts'
import { isRootOnly } from '#guests/qemu/options.ts'
import type { Services } from '#services.ts'
import { operation } from '#tasks/operation.ts'
import { optionsWithVolumes, restoreDisks, type RestoredVolume, storedOptions } from '../backup/restore-disks.ts'
import { goneCloudInits, ownCloudInits } from './cloud-init-drive.ts'
import { bringBackAll, eraseAll, freeNewVolumes, setAsideAll, volumesOf } from './volumes.ts'

export interface RestoreGuest {
  readonly vmid: number
  /** Volume id of the backup: `local:backup/vm/100/2026-11-20T10:00:00Z`. */
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
  /** Options that differ from the backup's. */
  readonly overrides?: Options | undefined
}

export type RestoreGuestDeps = Pick<
  Services,
  'settings' | 'clock' | 'random' | 'host' | 'guests' | 'storage' | 'backup' | 'pools'
>

export const restoreGuest = operation<RestoreGuest, RestoreGuestDeps>('qmrestore', {
  id: ({ vmid }) => vmid,
  locks: ({ vmid }) => [`guest/${vmid}`],
})
  .step('reservation', {
    async do({ params, deps, task }) {
      const vmid = asVmid(params.vmid)
      const before: string[] = await volumesOf(deps.storage, vmid)
      if (!(await deps.guests.exists(vmid)) || !params.force) {
        await deps.guests.reserve(vmid, task.upid) // Says who has the id when it is taken.
        return { before, old: null, pool: null }
      }
      await requireReplaceable(deps, vmid)
      const { options } = await deps.guests.config(vmid)
      return { before, old: { ...options }, pool: (await deps.pools.poolOf(vmid)) ?? null }
    },
    // Only what this task reserved: a guest that was there stays.
    undo: ({ params, deps, task }) => deps.guests.release(asVmid(params.vmid), task.upid),
  })
  .step('erasure', {
    do: () => {},
    // After success this is the deed itself. After a failure nothing is set aside any more.
    undo: ({ deps, done, task }) => eraseAll(deps.storage, replacedIn(done), task.upid),
    always: true,
  })
  .step('disks', {
    async do({ params, deps, log, progress, signal }) {
      await using reader = await deps.backup.open(asVolumeId(params.archive))
      log(`restoring ${params.archive} (data from ${reader.manifest.pointInTime})`)
      const restored = await restoreDisks({
        reader,
        vmid: asVmid(params.vmid),
        storage: params.storage,
        services: deps,
        log,
        signal,
        onProgress: (drive, fraction) => progress(`write ${drive}`, fraction),
      })
      log(`fetched in ${restored.fetchMs} ms, written in ${restored.writeMs} ms`)
      const options = await storedOptions(reader)
      const drives = { ...optionsWithVolumes(options, restored.disks), ...params.overrides }
      const context = { vmid: asVmid(params.vmid), storage: deps.storage, log }
      return { ...restored, options, cloudInit: await ownCloudInits(drives, params.storage, context) }
    },
    async undo({ params, deps, done, task }) {
      const vmid = asVmid(params.vmid)
      // Without a word from the first step nothing tells our volumes from others'; then none were made yet.
      if (!done.reservation) return
      if (await deps.guests.isMadeBy(vmid, task.upid)) await deps.guests.unwrite(vmid, task.upid)
      await freeNewVolumes(deps, vmid, done.reservation.before)
      // A volume may have been half made.
      await deps.storage.sweep()
    },
  })
  .step('old-disks', {
    do: ({ deps, done, task, log, warn }) =>
      setAsideAll(deps.storage, replacedIn(done), { upid: task.upid, log, warn }),
    undo: ({ deps, done, task }) => bringBackAll(deps.storage, replacedIn(done), task.upid),
  })
  .step('config', {
    async do({ params, deps, done, task, warn }) {
      const vmid = asVmid(params.vmid)
      const stored = withKept(optionsWithVolumes(done.disks.options, done.disks.disks), keptIn(done))
      const allowed = task.user === 'root@pam' ? stored : withoutRootOnly(stored, warn)
      const restored = { ...allowed, ...params.overrides, ...done.disks.cloudInit }
      const own = params.unique ? unique(restored, deps.random) : restored
      const options = await asNewGuest(own, deps)
      await deps.guests.writeConfig(vmid, options, { owner: task.upid })
    },
    // A new guest's configuration goes with its reservation.
    async undo({ params, deps, done }) {
      const old = done.reservation?.old
      if (old && (await deps.guests.exists(asVmid(params.vmid)))) {
        await deps.guests.writeConfig(asVmid(params.vmid), old)
      }
    },
  })
  .step('pool', {
    do: ({ params, deps }) => (params.pool === undefined ? undefined : deps.pools.put(params.vmid, params.pool)),
    async undo({ params, deps, done }) {
      if (params.pool === undefined || !done.reservation) return
      const { pool } = done.reservation
      if (pool === null) await deps.pools.takeOut(params.vmid)
      else await deps.pools.put(params.vmid, pool)
    },
  })
  .step('start', {
    async do({ params, deps, log, warn, signal, task }) {
      if (params.start !== true) return
      try {
        await deps.guests.start(asVmid(params.vmid), { startedBy: task.upid, log, signal })
      } catch (fault) {
        if (signal.aborted) throw fault
        warn(`start failed: ${messageOf(fault)}`)
      }
    },
    undo: ({ params, deps, task }) => deps.guests.undoStart(asVmid(params.vmid), task.upid),
  })

interface SoFar {
  readonly reservation?: { readonly old: Options | null }
  readonly disks?: { readonly disks: readonly RestoredVolume[]; readonly cloudInit: Options }
}

/** Old disks that a restored one takes the place of, and a cloud-init drive the restored guest has no use for. */
function replacedIn({ reservation, disks }: SoFar): VolumeId[] {
  const old = reservation?.old ?? {}
  const restored = new Set(disks?.disks.map(({ drive }) => drive))
  const replaced = volumesIn(old).flatMap(({ name, volid }) => (restored.has(name) ? [volid] : []))
  return disks ? [...replaced, ...goneCloudInits(old, disks.cloudInit)] : replaced
}

/** Old disks of which the backup knows nothing. */
function keptIn(done: SoFar): VolumeId[] {
  const replaced = new Set(replacedIn(done))
  return volumesIn(done.reservation?.old ?? {}).flatMap(({ volid }) => (replaced.has(volid) ? [] : [volid]))
}

function withKept(options: Options, kept: readonly VolumeId[]): Options {
  const result: Record<string, string> = { ...options }
  let number = 0
  for (const volid of kept) {
    while (result[`unused${number}`] !== undefined) number += 1
    result[`unused${number}`] = volid
  }
  return result
}

async function requireReplaceable({ guests }: RestoreGuestDeps, vmid: Vmid): Promise<void> {
  await guests.requireUnlocked(vmid)
  if (await guests.isRunning(vmid)) {
    throw new Fault('conflict', `unable to restore VM ${vmid} - VM is running`, { remedy: 'Stop it first.' })
  }
}

/** What root alone may set must not come to a guest by way of a restore. */
function withoutRootOnly(options: Options, warn: (line: string) => void): Options {
  const dropped = Object.keys(options).filter((name) => isRootOnly(name, options[name]))
  for (const name of dropped) warn(`${name} is left out: only root can set it`)
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
