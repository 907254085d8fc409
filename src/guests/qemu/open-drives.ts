/** Opens what drives hold, so that the guest's QEMU can read and write exactly that. */
import { Fault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import type { Options } from '../config.ts'
import type { GuestStorage } from '../needs.ts'
import type { BackingFile, DriveFile } from './drive-argv.ts'
import type { Drive } from './drive.ts'
import { drivesOf, isCloudInit, wishOf } from './drive.ts'
import { accessTo } from './file-access.ts'
import { tpmDrive } from './tpm.ts'

export interface OpenFor {
  readonly storage: GuestStorage
  readonly vmid: Vmid
  readonly uid: number
  /** Opens a file QEMU may only read and hands it over; returns the number of its set of descriptors. */
  readonly handOver: (path: string) => Promise<number>
  /** Socket of what is served below a drive, by its name. */
  readonly below?: Readonly<Record<string, string>> | undefined
}

/** The file of each drive QEMU opens, by name. */
export async function openDrives(options: Options, how: OpenFor): Promise<Record<string, DriveFile>> {
  const files: Record<string, DriveFile> = {}
  for (const drive of drivesOf(options)) {
    const file = drive.name === tpmDrive ? undefined : await openDrive(drive, how)
    if (file) files[drive.name] = file
  }
  return files
}

/** Nothing for a drive without a disc. */
export async function openDrive(drive: Drive, how: OpenFor): Promise<DriveFile | undefined> {
  const { storage, vmid, uid } = how
  const wish = wishOf(drive)
  if (wish.kind === 'empty' || wish.kind === 'host-cdrom') return undefined
  if (wish.kind !== 'volume' && wish.kind !== 'path') {
    throw new Fault('failed', `drive '${drive.name}' of VM ${vmid} holds no volume but '${drive.file}'`)
  }
  if (wish.kind === 'path') return { path: wish.path, format: 'raw', ...(await accessTo(wish.path)) }
  if (drive.isCdrom) return openDisc(wish.volid, how)
  const [top, ...below] = (await storage.layers(wish.volid)).layers
  if (!top) throw new Error(`volume '${wish.volid}' has no file`)
  const backing: BackingFile[] = []
  for (const { path, format } of below) backing.push({ format, descriptor: await how.handOver(path) })
  await storage.giveTo(wish.volid, uid)
  return { ...top, ...(await accessTo(top.path)), backing, served: how.below?.[drive.name] }
}

/** Installation media can be read by every guest's user; a cloud-init drive is for this one alone. */
export async function openDisc(
  volid: VolumeId,
  { storage, uid }: Pick<OpenFor, 'storage' | 'uid'>,
): Promise<DriveFile> {
  if (isCloudInit(volid)) await storage.giveTo(volid, uid)
  const found = await storage.location(volid)
  return { ...found, ...(await accessTo(found.path)) }
}

/** The file the TPM keeps its state in. */
export async function openTpmState(
  options: Options,
  { storage, vmid, uid }: Pick<OpenFor, 'storage' | 'vmid' | 'uid'>,
): Promise<string> {
  const drive = drivesOf(options).find(({ name }) => name === tpmDrive)
  const wish = drive && wishOf(drive)
  if (wish?.kind !== 'volume') throw new Fault('failed', `drive '${tpmDrive}' of VM ${vmid} holds no volume`)
  const { path, format } = await storage.location(wish.volid)
  if (format !== 'raw')
    throw new Fault('failed', `the state of a TPM is kept in format raw, and '${wish.volid}' is not`)
  await storage.giveTo(wish.volid, uid)
  return path
}
