/**
 * Makes the disks of a clone: linked to a template's, copied from images nobody writes to, or read from a guest while
 * it runs.
 *
 * A running guest is read as a backup reads it: all its disks at one moment, with its file systems frozen where its
 * agent does that. Rejected: a mirror job per disk, broken off when all are level. The guest would pay for both
 * copies all the time, and the moment would be the end, after which nothing may fail.
 */
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, invalid } from '#base/fault.ts'
import { splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import type { BlockSource } from '#datastore/backup/block-source.ts'
import { type BlockTarget, fileTarget, nbdTarget } from '#datastore/restore/block-target.ts'
import type { GuestConfig } from '#guests/config.ts'
import { isFirmwareDrive } from '#guests/qemu/drive.ts'
import { tpmDrive } from '#guests/qemu/tpm.ts'
import { openImage } from '#host/nbd/nbd-server.ts'
import type { ImageFormat } from '#storage/volume.ts'
import { type GuestMoment, runningMoment, type SourceDeps } from '../backup/guest-source.ts'
import { openAmong, type OpenDisk } from './snapshot-disks.ts'

export interface CloneDisks {
  readonly source: Vmid
  readonly config: GuestConfig
  readonly target: Vmid
  /** Drives of the clone with the volumes their content is in. */
  readonly disks: readonly OpenDisk[]
  readonly snapshot?: string | undefined
  readonly isLinked: boolean
  /** Absent: where each was. */
  readonly storage?: string | undefined
  readonly format?: ImageFormat | undefined
  readonly limitKiB?: number | undefined
  readonly log: (line: string) => void
  readonly progress: (phase: string, fraction?: number) => void
  readonly signal: AbortSignal
}

/** Volume of each drive. @throws Fault `exhausted`, `aborted`; what was made so far stays for the undo */
export async function cloneDisks(deps: SourceDeps, request: CloneDisks): Promise<Record<string, VolumeId>> {
  const { config, disks, snapshot, isLinked, log } = request
  const made: Record<string, VolumeId> = {}
  const volumes = disks.map(({ volid }) => volid)
  const { open } = openAmong(config, volumes)
  const live = isLinked || snapshot !== undefined ? [] : open
  await using moment = live.length === 0 ? undefined : await momentOf(deps, request, live)
  for (const { drive, volid } of disks) {
    const opened = live.find((disk) => disk.volid === volid)
    const isOpen = open.some((disk) => disk.volid === volid)
    // What firmware and TPM remember is small, and a TPM cannot keep it in layers.
    const links = isLinked && !isFirmwareDrive(drive)
    if (links) made[drive] = await deps.storage.link(volid, request.target)
    else if (moment && opened) made[drive] = await copyLive(deps, request, moment, opened)
    else made[drive] = await copyStill(deps, request, { drive, volid }, isOpen)
    log(`${drive}: ${links ? 'linked to' : 'copied from'} ${volid} as ${made[drive]}`)
  }
  return made
}

async function momentOf(deps: SourceDeps, request: CloneDisks, disks: readonly OpenDisk[]): Promise<GuestMoment> {
  const { source, config, signal, log } = request
  const moment = await runningMoment(deps, { vmid: source, disks, options: config.running ?? config.options, signal })
  const { freeze } = moment
  if (freeze.state === 'frozen') log(`file systems were frozen for ${freeze.durationMs} ms`)
  else log(`file systems were not frozen (${freeze.reason}): the clone is as after a power cut`)
  return moment
}

async function placeFor(deps: SourceDeps, { storage, format }: CloneDisks, drive: string, volid: VolumeId) {
  const place = storage ?? splitVolumeId(volid).storage
  const { formats } = deps.storage.featuresOf(await deps.storage.get(place))
  const own = formats.find((one) => volid.endsWith(`.${one}`))
  const wanted = (drive === tpmDrive ? 'raw' : format) ?? own ?? formats[0] ?? 'raw'
  if (!formats.includes(wanted))
    throw invalid({ format: `storage '${place}' cannot hold images of format '${wanted}'` })
  return { storage: place, format: wanted }
}

async function copyStill(deps: SourceDeps, request: CloneDisks, disk: OpenDisk, isOpen: boolean): Promise<VolumeId> {
  const { snapshot, limitKiB, signal, target: vmid } = request
  const onProgress = (fraction: number) => request.progress(`copy ${disk.drive}`, fraction)
  const place = await placeFor(deps, request, disk.drive, disk.volid)
  const source = disk.volid
  return deps.storage.copy({ source, snapshot, isOpen, ...place, vmid, limitKiB, onProgress, signal })
}

async function copyLive(
  deps: SourceDeps,
  request: CloneDisks,
  moment: GuestMoment,
  { drive, volid }: OpenDisk,
): Promise<VolumeId> {
  const place = await placeFor(deps, request, drive, volid)
  await using source = await moment.open(drive)
  const { sizeBytes } = source
  const copy = await deps.storage.allocate({ ...place, vmid: request.target, sizeBytes })
  const { path } = await deps.storage.location(copy)
  const onProgress = (fraction: number) => request.progress(`copy ${drive}`, fraction)
  const how = { onProgress, signal: request.signal, clock: deps.clock, limitKiB: request.limitKiB }
  if (place.format === 'raw') {
    await using target = await fileTarget(path, sizeBytes)
    await copyBlocks(source, target, how)
    return copy
  }
  const socket = join(deps.settings.runDir, `clone-${request.target}-${drive}.sock`)
  await using image = await openImage(deps.host, {
    path,
    format: place.format,
    isReadOnly: false,
    socket,
    signal: request.signal,
  })
  await copyBlocks(source, nbdTarget(image.client), how)
  return copy
}

const pieceBytes = MiB

interface CopyHow {
  readonly onProgress: (fraction: number) => void
  readonly clock: Clock
  readonly limitKiB?: number | undefined
  readonly signal: AbortSignal
}

/** Copies what is not zero; the target reads as zeros before. */
async function copyBlocks(source: BlockSource, target: BlockTarget, how: CopyHow): Promise<void> {
  const { onProgress, clock, limitKiB = 0, signal } = how
  const startedMs = clock.monotonic()
  const piece = Buffer.allocUnsafe(pieceBytes)
  let copied = 0
  for await (const { offset, length, isZero } of source.extents()) {
    for (let at = offset; !isZero && at < offset + length; at += pieceBytes) {
      if (signal.aborted) throw new Fault('aborted', 'copying was interrupted')
      const part = piece.subarray(0, Math.min(pieceBytes, offset + length - at))
      await source.read(at, part)
      if (part.some((byte) => byte !== 0)) await target.write(at, part)
      copied += part.length
      onProgress((at + part.length) / source.sizeBytes)
      if (limitKiB > 0) await clock.sleep(Math.max(0, copied / limitKiB / 1.024 - (clock.monotonic() - startedMs)))
    }
  }
  await target.flush()
}
