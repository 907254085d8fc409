/**
 * Turns what drives ask for into volumes: `local:8` becomes `local:100/vm-100-disk-0.raw,size=8G`.
 *
 * Undo frees by looking: volumes of the guest that were not there before and that no configuration holds.
 * It does not go by remembered names, because the node may die after a disk is made and before the journal
 * heard of it.
 */
import { stat } from 'node:fs/promises'
import { formatSize } from '#base/bytes.ts'
import { invalid, isFault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { splitVolumeId } from '#base/ids.ts'
import type { GuestConfig, Options } from '#guests/config.ts'
import { isOwned } from '#guests/config.ts'
import type { Drive, DriveWish } from '#guests/qemu/drive.ts'
import { cloudInitVolumesIn, driveOf, isCloudInit, printDrive, volumesIn, wishOf } from '#guests/qemu/drive.ts'
import { volumesIn as mountedVolumesIn } from '#guests/lxc/mountpoint.ts'
import { variablesTemplate } from '#guests/qemu/firmware.ts'
import { tpmBytes } from '#guests/qemu/tpm.ts'
import type { GuestService } from '#guests/service.ts'
import type { StorageService } from '#storage/service.ts'
import { markOf } from '../storage/aside.ts'

export interface MakeContext {
  readonly vmid: Vmid
  readonly storage: StorageService
  /** What the guest has already; the only disks based on others that it may attach. */
  readonly held?: readonly VolumeId[]
  readonly log: (line: string) => void
  readonly progress: (phase: string, fraction?: number) => void
  readonly signal: AbortSignal
}

/** Every disk of the guest on every storage that can be looked at now. */
export async function volumesOf(storage: StorageService, vmid: Vmid): Promise<VolumeId[]> {
  const found: VolumeId[] = []
  for (const { name, content } of await storage.list()) {
    if (!content.some((one) => one === 'images' || one === 'rootdir') || !(await storage.status(name)).active) continue
    const volumes = await storage.content(name, { vmid })
    found.push(...volumes.filter((one) => isDisk(one.content)).map(({ volid }) => volid))
  }
  return found
}

/** Few guests have such a drive, and most who look at volumes make none. */
const cloudInit = () => import('./cloud-init-drive.ts')

/** Of virtual machines and of containers. */
function isDisk(content: string): boolean {
  return content === 'images' || content === 'rootdir'
}

/** The texts of the named drives once their volumes exist. */
export async function makeVolumes(
  options: Options,
  names: readonly string[],
  context: MakeContext,
): Promise<Record<string, string>> {
  const made: Record<string, string> = {}
  for (const name of names) made[name] = await settle(driveOf(name, options[name] ?? ''), context)
  return made
}

async function settle(drive: Drive, context: MakeContext): Promise<string> {
  const wish = wishOf(drive)
  switch (wish.kind) {
    case 'empty':
    case 'host-cdrom':
      return printDrive(drive)
    case 'path':
      await requireFile(drive, wish.path, context)
      return printDrive(drive)
    case 'volume':
      return attach(drive, wish.volid, context)
    case 'allocate':
      return allocate(drive, wish, context)
    case 'import':
      return importImage(drive, wish, context)
    case 'cloudinit':
      return (await cloudInit()).ownCloudInit(drive, wish.storage, context)
    default:
      return wish satisfies never
  }
}

/**
 * A file of the node's beside all storages. QEMU opens it as the user of the guest, and only then is it known
 * whether that user may: what speaks against it is said.
 */
async function requireFile({ name, isCdrom }: Drive, path: string, { log }: Pick<MakeContext, 'log'>): Promise<void> {
  const remedy = isCdrom
    ? `Upload it, then name it: --${name} <storage>:iso/<file>,media=cdrom.`
    : `Make a new disk (--${name} <storage>:<GiB>), or one from a file (--${name} <storage>:0,import-from=<file>).`
  const facts = await stat(path).catch((cause: unknown) => {
    throw invalid({ [name]: `file '${path}' does not exist` }, { cause, remedy })
  })
  if (!facts.isFile() && !facts.isBlockDevice())
    throw invalid({ [name]: `'${path}' is neither a file nor a block device` }, { remedy })
  const needed = isCdrom ? 0o4 : 0o6
  if ((facts.mode & needed) !== needed)
    log(`WARN: ${name}: the guest runs as a user of its own, who may not open '${path}'. ${remedy}`)
}

async function attach(drive: Drive, volid: VolumeId, context: MakeContext): Promise<string> {
  const { storage, vmid, held = [] } = context
  if (isCloudInit(volid) && isOwned(volid, vmid))
    return (await cloudInit()).ownCloudInit(drive, splitVolumeId(volid).storage, context)
  const { content, sizeBytes, parent } = await storage.describe(volid)
  const wanted = drive.isCdrom ? 'iso' : 'images'
  if (content !== wanted) throw invalid({ [drive.name]: `volume '${volid}' holds ${content}, not ${wanted}` })
  if (!drive.isCdrom && !isOwned(volid, vmid)) {
    throw invalid({ [drive.name]: `volume '${volid}' belongs to another guest` })
  }
  // That a disk is based on a template's is its guest's own word, unless a clone of ours has put it there.
  if (parent !== undefined && !held.includes(volid)) {
    throw invalid({ [drive.name]: `volume '${volid}' is based on '${parent}', and was not made for this guest` })
  }
  return printDrive(drive, { size: formatSize(sizeBytes) })
}

async function allocate(
  drive: Drive,
  wish: Extract<DriveWish, { kind: 'allocate' }>,
  { storage, vmid, log, signal }: MakeContext,
): Promise<string> {
  const format = await formatFor(drive, wish.storage, storage)
  const place = { storage: wish.storage, vmid, format }
  // The firmware's drives have the size they need, whatever was asked for.
  const volid =
    drive.bus === 'efidisk'
      ? await storage.importImage({ ...place, source: variablesTemplate(drive), sourceFormat: 'raw', signal })
      : await storage.allocate({ ...place, sizeBytes: drive.bus === 'tpmstate' ? tpmBytes : wish.sizeBytes })
  log(`${drive.name}: allocated ${volid}`)
  return finished(drive, volid, storage)
}

async function importImage(
  drive: Drive,
  wish: Extract<DriveWish, { kind: 'import' }>,
  { storage, vmid, log, progress, signal }: MakeContext,
): Promise<string> {
  const { importPlaceOf } = await import('#storage/import.ts')
  const { path: source, format: sourceFormat, part: sourcePart } = await importPlaceOf(storage, wish.source)
  const format = await formatFor(drive, wish.storage, storage)
  const onProgress = (fraction: number) => progress(`import ${drive.name}`, fraction)
  const from = { source, sourceFormat, sourcePart }
  const volid = await storage.importImage({ storage: wish.storage, vmid, ...from, format, onProgress, signal })
  log(`${drive.name}: imported ${wish.source} as ${volid}`)
  return finished(drive, volid, storage)
}

/** The configuration keeps the volume and its size; how it came to be is over. */
async function finished(drive: Drive, volid: VolumeId, storage: StorageService): Promise<string> {
  const { sizeBytes } = await storage.describe(volid)
  return printDrive(drive, { file: volid, size: formatSize(sizeBytes), format: undefined, 'import-from': undefined })
}

async function formatFor(drive: Drive, name: string, storage: StorageService): Promise<'raw' | 'qcow2'> {
  const { format } = drive.values
  if (drive.bus === 'tpmstate') return 'raw'
  if (format === undefined) return storage.featuresOf(await storage.get(name)).formats[0] ?? 'raw'
  if (format === 'raw' || format === 'qcow2') return format
  throw invalid({ [drive.name]: `format '${String(format)}' cannot be made: use raw or qcow2` })
}

/** Every volume that the guest has, has open, or has in a snapshot. */
export function heldVolumes({ options, running = {}, snapshots = {} }: Omit<GuestConfig, 'digest'>): VolumeId[] {
  const kept = Object.values(snapshots).flatMap((one) => [one.options, one.memory?.options ?? {}])
  // What was unused when it started is not open for that.
  const open = Object.fromEntries(Object.entries(running).filter(([name]) => !name.startsWith('unused')))
  const all = [options, open, ...kept].flatMap((some) =>
    [...volumesIn(some), ...cloudInitVolumesIn(some), ...mountedVolumesIn(some)].map(({ volid }) => volid),
  )
  const states = Object.values(snapshots).flatMap(({ memory }) => memory?.volume ?? [])
  return [...new Set([...all, ...states])]
}

/** Frees the guest's volumes that neither `before` names nor its configuration holds. */
export async function freeNewVolumes(
  { guests, storage }: { readonly guests: GuestService; readonly storage: StorageService },
  vmid: Vmid,
  before: readonly string[],
): Promise<void> {
  const held = (await guests.exists(vmid)) ? heldVolumes(await guests.config(vmid, 'any')) : []
  for (const volid of await volumesOf(storage, vmid)) {
    if (!before.includes(volid) && !held.includes(volid)) await storage.free(volid)
  }
}

interface Telling {
  readonly upid: string
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
}

/** Takes volumes out of sight until the task has succeeded. One that is gone already is said, and no error. */
export async function setAsideAll(
  storage: StorageService,
  volumes: readonly VolumeId[],
  { upid, log, warn }: Telling,
): Promise<void> {
  for (const volid of volumes) {
    try {
      await storage.setAside(volid, markOf(upid))
      log(`removing ${volid}`)
    } catch (fault) {
      if (!isFault(fault, 'missing')) throw fault
      warn(`${volid} was not there any more`)
    }
  }
}

export async function bringBackAll(storage: StorageService, volumes: readonly VolumeId[], upid: string): Promise<void> {
  for (const volid of volumes) await storage.bringBack(volid, markOf(upid))
}

/** Destroys what is set aside. */
export async function eraseAll(storage: StorageService, volumes: readonly VolumeId[], upid: string): Promise<void> {
  for (const volid of volumes) await storage.erase(volid, markOf(upid))
}
