/**
 * Cloud-init drives as volumes: who makes, copies, restores or moves a guest gives it one of its own.
 *
 * What such a volume holds does not matter, because it is written whenever the guest starts. So none is ever copied or
 * backed up, one that is there is taken as it is, and an old one is not kept.
 */
import { formatSize } from '#base/bytes.ts'
import { Fault, invalid } from '#base/fault.ts'
import { splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { cloudInitBytes } from '#guests/cloud-init/drive.ts'
import type { Options } from '#guests/config.ts'
import { cloudInitVolumesIn, type Drive, drivesOf, isCloudInit, printDrive } from '#guests/qemu/drive.ts'
import type { StorageService } from '#storage/service.ts'
import { type ImageFormat, imageFormats, volumeId, wishedImageName } from '#storage/volume.ts'

interface DriveContext {
  readonly vmid: Vmid
  readonly storage: StorageService
  readonly log: (line: string) => void
}

/** The text of a cloud-init drive on that storage, in a volume of the guest's own. Its undo is `freeNewVolumes`. */
export async function ownCloudInit(drive: Drive, place: string, context: DriveContext): Promise<string> {
  const { storage, vmid, log } = context
  const format = await formatFor(drive, place, storage)
  const name = wishedImageName(vmid, `vm-${vmid}-cloudinit`, format)
  const volid = volumeId(place, name)
  const there = await storage.content(place, { content: 'images', vmid })
  if (there.every((one) => one.volid !== volid)) {
    await storage.allocate({ storage: place, vmid, sizeBytes: cloudInitBytes, format, name: name.base })
    log(`${drive.name}: allocated ${volid}`)
  }
  return printDrive(drive, { file: volid, size: formatSize(cloudInitBytes), format: undefined, media: 'cdrom' })
}

async function formatFor(drive: Drive, place: string, storage: StorageService): Promise<ImageFormat> {
  const { formats } = storage.featuresOf(await storage.get(place))
  const { format } = drive.values
  if (format === undefined) return formats.find((one) => drive.file.endsWith(`.${one}`)) ?? formats[0] ?? 'raw'
  const wished = imageFormats.find((one) => one === format)
  if (wished !== undefined) return wished
  throw invalid({ [drive.name]: `format '${String(format)}' cannot be made: use ${imageFormats.join(' or ')}` })
}

/**
 * The cloud-init drives of a guest that is made from another, each in a volume of its own.
 * @param place where they go; without one, each where it was
 */
export async function ownCloudInits(
  options: Options,
  place: string | undefined,
  context: DriveContext,
): Promise<Record<string, string>> {
  const texts: Record<string, string> = {}
  for (const drive of drivesOf(options)) {
    if (!isCloudInit(drive.file)) continue
    const [own = ''] = drive.file.split(':')
    texts[drive.name] = await ownCloudInit(drive, place ?? own, context)
  }
  return texts
}

/** Cloud-init drives of before that are none any more. */
export function goneCloudInits(before: Options, after: Options): VolumeId[] {
  const kept = cloudInitVolumesIn(after).map(({ volid }) => volid)
  return cloudInitVolumesIn(before).flatMap(({ volid }) => (kept.includes(volid) ? [] : [volid]))
}

/**
 * A move of a cloud-init drive as the change it comes to: one is made there, and the old one goes.
 * @throws Fault in PVE's words for a move that is none
 */
export function movedCloudInit(
  options: Options,
  {
    disk,
    storage,
    format,
  }: { readonly disk: string; readonly storage?: string | undefined; readonly format?: string | undefined },
): Options | undefined {
  const drive = drivesOf(options).find(({ name }) => name === disk)
  const [now] = cloudInitVolumesIn(options).filter(({ name }) => name === disk)
  if (!drive || !now) return undefined
  const place = storage ?? splitVolumeId(now.volid).storage
  const isSame = format === undefined || now.volid.endsWith(`.${format}`)
  if (place === splitVolumeId(now.volid).storage && isSame) {
    throw new Fault('failed', `you can't move to the same storage with same format`)
  }
  return { [disk]: printDrive(drive, { file: `${place}:cloudinit`, format, size: undefined }) }
}
