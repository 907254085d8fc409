/**
 * Moves a disk to another storage or format, also while its guest runs.
 *
 * Until the switch everything can be taken back. Once a running guest writes to the new image there is no way back to the
 * old one, so from then on this is finished instead: the configuration says what the guest uses, and the old volume
 * stays as unused.
 */
import { formatSize, rateOfLimit } from '#base/bytes.ts'
import { Fault, invalid, missing } from '#base/fault.ts'
import { asVmid, splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { type GuestConfig, isTemplate, type Options, requireDigest, takeBack } from '#guests/config.ts'
import { withUnused } from '#guests/qemu/change.ts'
import { driveNameParts, driveOf, isFirmwareDrive, printDrive, volumeIn } from '#guests/qemu/drive.ts'
import { accessTo } from '#guests/qemu/file-access.ts'
import { abandonMirror, hasPivoted, pivot, settle, startMirror } from '#guests/qemu/mirror.ts'
import { tpmDrive } from '#guests/qemu/tpm.ts'
import type { StorageService } from '#storage/service.ts'
import type { ImageFormat } from '#storage/volume.ts'
import { operation } from '#tasks/operation.ts'
import { markOf } from '../storage/aside.ts'
import { aboutOneGuest } from './one-guest.ts'
import type { DiskDeps } from './resize.ts'
import { openAmong } from './snapshot-disks.ts'
import { bringBackAll, eraseAll, freeNewVolumes, heldVolumes, setAsideAll, volumesOf } from './volumes.ts'

export interface MoveDisk {
  readonly vmid: number
  /** `scsi0`, `unused1` */
  readonly disk: string
  readonly storage?: string | undefined
  readonly format?: ImageFormat | undefined
  /** Destroy the old volume instead of keeping it as unused. */
  readonly delete?: boolean | undefined
  readonly digest?: string | undefined
  /** KiB per second. */
  readonly bwlimit?: number | undefined
}

export const moveDisk = operation<MoveDisk, DiskDeps>('qmmove', aboutOneGuest)
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid)
      requireDigest(config, params.digest)
      const plan = await planMove(deps.storage, config, params)
      const [opened] = openAmong(config, [plan.old]).open
      if (opened && opened.drive !== params.disk) {
        throw new Fault(
          'conflict',
          `volume '${plan.old}' is still in use by drive ${opened.drive} of the running guest`,
        )
      }
      const isRunning = opened !== undefined
      if (isRunning && isFirmwareDrive(params.disk)) {
        throw new Fault('conflict', `drive '${params.disk}' cannot be moved while the guest runs`, {
          remedy: 'Stop the guest first.',
        })
      }
      return { ...plan, isRunning, before: config.options, volumes: await volumesOf(deps.storage, vmid) }
    },
  })
  .step('erasure', {
    do: () => {},
    // After success this is the deed itself. After a failure nothing is set aside any more.
    undo: ({ params, deps, done, task }) => eraseAll(deps.storage, goneIn(params, done), task.upid),
    always: true,
  })
  .step('volume', {
    do: async ({ params, deps, done, log, progress, signal }) => {
      const vmid = asVmid(params.vmid)
      const { old: source, storage, format, isRunning } = done.check
      const onProgress = (fraction: number) => progress(`copy ${params.disk}`, fraction)
      const { sizeBytes } = await deps.storage.describe(source)
      const place = { storage, format, vmid }
      const limitKiB = params.bwlimit
      const volid = isRunning
        ? await deps.storage.allocate({ ...place, sizeBytes })
        : await deps.storage.copy({ ...place, source, limitKiB, onProgress, signal })
      log(`${params.disk}: ${source} goes to ${volid}`)
      return { volid, size: formatSize(sizeBytes) }
    },
    undo: async ({ params, deps, done }) => {
      if (!done.check) return
      await freeNewVolumes(deps, asVmid(params.vmid), done.check.volumes)
      await deps.storage.sweep()
    },
  })
  .step('mirror', {
    do: async ({ params, deps, done, progress, signal, task }) => {
      if (!done.check.isRunning) return
      const vmid = asVmid(params.vmid)
      const { volid } = done.volume
      await deps.storage.giveTo(volid, deps.guests.uidOf(vmid))
      const [file] = (await deps.storage.layers(volid)).layers
      await using monitor = await deps.guests.qmp(vmid, 'long', signal)
      const onProgress = (fraction: number) => progress(`copy ${params.disk}`, fraction)
      await startMirror(
        monitor,
        driveOf(params.disk, done.check.before[params.disk] ?? ''),
        { ...file, ...(await accessTo(file.path)) },
        markOf(task.upid),
        { onProgress, signal, bytesPerSecond: rateOfLimit(params.bwlimit) ?? 0 },
      )
    },
    undo: async ({ params, deps, task }) => {
      const vmid = asVmid(params.vmid)
      if (!driveNameParts(params.disk) || !(await deps.guests.isRunning(vmid))) return
      await using monitor = await deps.guests.qmp(vmid, 'long')
      if (await hasPivoted(monitor, params.disk, markOf(task.upid))) return
      await abandonMirror(monitor, params.disk, markOf(task.upid))
    },
  })
  .step('switch', {
    do: async ({ params, deps, done, task }) => {
      const vmid = asVmid(params.vmid)
      if (done.check.isRunning) {
        await using monitor = await deps.guests.qmp(vmid, 'long')
        await pivot(monitor, driveOf(params.disk, done.check.before[params.disk] ?? ''), markOf(task.upid))
      }
      await writeMoved(deps, vmid, params, { old: done.check.old, ...done.volume })
    },
    undo: async ({ params, deps, done, task }) => {
      const { check, volume } = done
      if (!check || !volume) return
      const vmid = asVmid(params.vmid)
      const moved = { old: check.old, ...volume }
      if (check.isRunning && (await deps.guests.isRunning(vmid))) {
        await using monitor = await deps.guests.qmp(vmid, 'long')
        if (await hasPivoted(monitor, params.disk, markOf(task.upid))) {
          await settle(monitor, driveOf(params.disk, check.before[params.disk] ?? ''), markOf(task.upid))
          await writeMoved(deps, vmid, { ...params, delete: false }, moved)
          // Also when the configuration had forgotten it already.
          return await deps.guests.changeConfig(vmid, (now) => withUnused(now, check.old))
        }
      }
      const written = movedOptions(check.before, params, moved)
      await deps.guests.changeConfig(vmid, (now) => takeBack(now, check.before, written))
    },
  })
  .step('old volume', {
    do: ({ params, deps, done, task, log, warn }) =>
      setAsideAll(deps.storage, goneIn(params, done), { upid: task.upid, log, warn }),
    undo: ({ params, deps, done, task }) => bringBackAll(deps.storage, goneIn(params, done), task.upid),
  })

interface Moved {
  readonly old: VolumeId
  readonly volid: VolumeId
  readonly size: string
}

function goneIn(params: MoveDisk, { check }: { readonly check?: { readonly old: VolumeId } }): VolumeId[] {
  return params.delete === true && check ? [check.old] : []
}

/**
 * Where the disk goes, decided without touching anything.
 * @throws Fault in PVE's words for a move that is none, or that would tear a snapshot apart
 */
export async function planMove(
  storages: StorageService,
  { options, snapshots = {} }: GuestConfig,
  params: Omit<MoveDisk, 'vmid'>,
): Promise<{ old: VolumeId; storage: string; format: ImageFormat }> {
  const text = options[params.disk]
  const old = text === undefined ? undefined : volumeIn(params.disk, text)
  if (old === undefined) throw missing('disk', params.disk)
  if (isTemplate(options)) throw new Fault('conflict', 'the disks of a template cannot be moved')
  const own = splitVolumeId(old).storage
  const { storage = own } = params
  const { formats } = storages.featuresOf(await storages.get(storage))
  const now = formats.find((one) => old.endsWith(`.${one}`))
  const format = params.format ?? now ?? formats[0] ?? 'raw'
  if (params.disk === tpmDrive && format !== 'raw') {
    throw invalid({ format: `the state of a TPM is kept in format 'raw'` })
  }
  if (storage === own && format === now) {
    throw new Fault('failed', `you can't move to the same storage with same format`)
  }
  await storages.requireContent(storage, 'images')
  const kept = heldVolumes({ options: {}, snapshots })
  if (params.delete === true && kept.includes(old)) {
    throw new Fault('conflict', `you can't move a disk with snapshots and delete the source`, {
      remedy: 'Leave out delete, or delete the snapshots first.',
    })
  }
  return { old, storage, format }
}

function movedOptions(
  options: Options,
  params: Pick<MoveDisk, 'disk' | 'delete'>,
  { old, volid, size }: Moved,
): Options {
  const text = options[params.disk]
  if (text === undefined || volumeIn(params.disk, text) !== old) return options
  const isDrive = driveNameParts(params.disk) !== undefined
  const moved = isDrive ? printDrive(driveOf(params.disk, text), { file: volid, size, format: undefined }) : volid
  const next = { ...options, [params.disk]: moved }
  return params.delete === true ? next : withUnused(next, old)
}

async function writeMoved(
  { guests }: DiskDeps,
  vmid: Vmid,
  params: Pick<MoveDisk, 'disk' | 'delete'>,
  moved: Moved,
): Promise<void> {
  await guests.changeConfig(vmid, (now) => movedOptions(now, params, moved))
  // What runs has no unused disks.
  await guests.changeRunning(vmid, (now) => movedOptions(now, { ...params, delete: true }, moved))
}
