/**
 * Restores the disks of a backup into new volumes of a guest: for a restore as for a drill.
 *
 * Every chunk is checked before it is written, holes stay holes. The volumes belong to the guest id they
 * are made for, so an undo finds them by owner.
 */
import { join } from 'node:path'
import { formatSize } from '#base/bytes.ts'
import { Fault, invalid } from '#base/fault.ts'
import { splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { type BlockTarget, fileTarget, nbdTarget } from '#datastore/restore/block-target.ts'
import { restoreDisk, type RestoreOptions } from '#datastore/restore/restore-disk.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import type { Options } from '#guests/config.ts'
import { driveNameParts, driveOf, isCdrom, isOnBus, printDrive, volumeIn } from '#guests/qemu/drive.ts'
import { openImage } from '#host/nbd/nbd-server.ts'
import { namingFullStorage, type Writing } from '#storage/full.ts'
import type { Services } from '#services.ts'
import { storedOptions } from './guest-conf.ts'
import { watchedTarget } from './watched-target.ts'

export type RestoreDeps = Pick<Services, 'settings' | 'host' | 'storage'>

export interface RestoreDisksRequest {
  readonly reader: BackupReader
  /** The one disk that is wanted; without one, all. */
  readonly only?: string | undefined
  /** Guest the new volumes belong to. */
  readonly vmid: Vmid
  /** Where they go; without one, each where the disk was. */
  readonly storage?: string | undefined
  /** Drives on a bus stay empty: their content comes while the guest runs. */
  readonly isLive?: boolean | undefined
  /** What is written is to be named by a digest that needs no key. */
  readonly isNamed?: boolean | undefined
  readonly services: RestoreDeps
  /** Upper bound of what is written. */
  readonly rateBytesPerSecond?: number | undefined
  /** Share of all disks, 0 to 1. */
  readonly onProgress?: ((drive: string, fraction: number, doneBytes: number) => void) | undefined
  readonly log?: ((line: string) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

export type RestoredVolume = {
  /** `scsi0` */
  readonly drive: string
  readonly volid: VolumeId
  readonly sizeBytes: number
  /** SHA-256 over the SHA-256s of each 128 KiB of what was written, where that was asked for. */
  readonly digest?: string
}

export type RestoredVolumes = {
  readonly disks: readonly RestoredVolume[]
  /** Disks that are still empty. */
  readonly later: readonly RestoredVolume[]
  /** Reading, checking and decompressing. */
  readonly fetchMs: number
  /** Writing, the last sync included. */
  readonly writeMs: number
}

/** @throws Fault `damaged` naming the chunk, `exhausted`, `aborted`; volumes made so far stay for the undo */
export async function restoreDisks(request: RestoreDisksRequest): Promise<RestoredVolumes> {
  const { reader, log = () => {}, onProgress, signal } = request
  const options = await storedOptions(reader)
  const disks = reader.manifest.disks.filter(({ name }) => request.only === undefined || name === request.only)
  const restored: RestoredVolume[] = []
  const later: RestoredVolume[] = []
  let [fetchMs, writeMs] = [0, 0]
  for (const [number, { name, sizeBytes }] of disks.entries()) {
    const isLater = request.isLive === true && comesLater(name, options)
    const volid = await allocate(request, options, name, isLater)
    if (isLater) {
      later.push({ drive: name, volid, sizeBytes })
      log(`${name}: goes to ${volid} while the guest runs`)
      continue
    }
    const result = await namingFullStorage(writingOf(request, name, volid), () =>
      fill(request, name, volid, {
        signal,
        rateBytesPerSecond: request.rateBytesPerSecond,
        onProgress: ({ doneBytes }) =>
          onProgress?.(name, (number + doneBytes / Math.max(1, sizeBytes)) / disks.length, doneBytes),
      }),
    )
    fetchMs += result.fetchMs
    writeMs += result.writeMs
    const { digest } = result
    restored.push({ drive: name, volid, sizeBytes, ...(digest !== undefined && { digest }) })
    log(`${name}: restored as ${volid} (${formatSize(result.writtenBytes)} of ${formatSize(sizeBytes)} written)`)
  }
  return { disks: restored, later, fetchMs: Math.round(fetchMs), writeMs: Math.round(writeMs) }
}

/**
 * That configuration with the restored volumes in place of the old ones. Disks the backup does not hold
 * go, discs stay; a restored disk the configuration does not name becomes unused.
 */
export function optionsWithVolumes(
  options: Options,
  disks: readonly Pick<RestoredVolume, 'drive' | 'volid' | 'sizeBytes'>[],
): Record<string, string> {
  const result: Record<string, string> = {}
  for (const [name, text] of Object.entries(options)) {
    // The disks of a template are under names of their own, and nothing restored is.
    const isLeftOver = ['lock', 'parent', 'snapshots', 'template'].includes(name) || /^unused\d+$/.test(name)
    if (!isLeftOver && (driveNameParts(name) === undefined || isCdrom(text))) result[name] = text
  }
  let unused = 0
  for (const { drive, volid, sizeBytes } of disks) {
    const text = options[drive]
    if (text === undefined || isCdrom(text)) result[`unused${unused++}`] = volid
    else result[drive] = printDrive(driveOf(drive, text), { file: volid, size: formatSize(sizeBytes) })
  }
  return result
}

/** The firmware and the TPM read theirs whole, and what the guest cannot write cannot be copied below it. */
function comesLater(name: string, options: Options): boolean {
  const text = options[name]
  if (text === undefined || isCdrom(text)) return false
  const drive = driveOf(name, text)
  return isOnBus(drive) && drive.values.ro !== true
}

async function allocate(
  { reader, vmid, storage, services }: RestoreDisksRequest,
  options: Options,
  drive: string,
  isLater: boolean,
) {
  const { sizeBytes, dataBytes } = reader.disk(drive)
  const origin = options[drive] === undefined ? undefined : volumeIn(drive, options[drive])
  const target = storage ?? (origin === undefined ? undefined : splitVolumeId(origin).storage)
  if (target === undefined) {
    throw new Fault('invalid', `the backup does not say where disk ${drive} was`, { remedy: 'Name a storage.' })
  }
  const { formats } = services.storage.featuresOf(await services.storage.get(target))
  // Only that format can lie on top of what is not there yet.
  if (isLater && !formats.includes('qcow2')) {
    throw invalid({ 'live-restore': `storage '${target}' has no format qcow2, which it takes` })
  }
  const wished = isLater || origin?.endsWith('.qcow2') ? 'qcow2' : 'raw'
  const format = formats.includes(wished) ? wished : (formats[0] ?? 'raw')
  // A disk has at least a sector, and a backup of an empty one must come back all the same.
  return services.storage.allocate({
    storage: target,
    vmid,
    sizeBytes: Math.max(512, sizeBytes),
    format,
    neededBytes: dataBytes,
  })
}

function writingOf({ reader, vmid, services }: RestoreDisksRequest, drive: string, volid: VolumeId): Writing {
  const { storage } = splitVolumeId(volid)
  return {
    storage,
    what: `disk ${drive} of guest ${vmid}`,
    neededBytes: reader.disk(drive).dataBytes,
    availableBytes: async () => (await services.storage.status(storage)).availableBytes,
  }
}

async function fill(
  request: RestoreDisksRequest,
  drive: string,
  volid: VolumeId,
  options: RestoreOptions,
): Promise<FilledDisk> {
  const { reader, isNamed } = request
  const { sizeBytes } = reader.disk(drive)
  await using target = await openTarget(request, drive, volid, sizeBytes)
  const watched = watchedTarget(target, { sizeBytes, isNamed: isNamed === true })
  const started = performance.now()
  const writtenBytes = await restoreDisk(reader, drive, watched, options)
  const { writeMs } = watched
  const digest = watched.digest()
  return {
    writtenBytes,
    writeMs,
    fetchMs: performance.now() - started - writeMs,
    ...(digest !== undefined && { digest }),
  }
}

interface FilledDisk extends Pick<RestoredVolume, 'digest'> {
  readonly writtenBytes: number
  readonly fetchMs: number
  readonly writeMs: number
}

/** A new volume, to be written once. @throws Fault `invalid` for a format that cannot be written to */
export async function openTarget(
  { services, vmid, signal }: Pick<RestoreDisksRequest, 'services' | 'vmid' | 'signal'>,
  drive: string,
  volid: VolumeId,
  sizeBytes: number,
): Promise<BlockTarget> {
  const { path, format } = await services.storage.location(volid)
  if (format === 'raw') return fileTarget(path, sizeBytes)
  if (format !== 'qcow2')
    throw new Fault('invalid', `volume '${volid}' has format ${format}, which cannot be restored to`)
  const socket = join(services.settings.runDir, `restore-${vmid}-${drive}.sock`)
  const image = await openImage(services.host, { path, format, isReadOnly: false, socket, signal })
  return { ...nbdTarget(image.client), [Symbol.asyncDispose]: () => image[Symbol.asyncDispose]() }
}
