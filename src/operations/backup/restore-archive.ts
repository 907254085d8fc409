/**
 * Restores an archive of another platform: its disks into new volumes of a guest, its configuration as one of
 * ours. The archive is a stream with all disks mixed in it, so all volumes are made first and written at once.
 */
import { formatSize, humanSize } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import type { BlockTarget } from '#datastore/restore/block-target.ts'
import { memoryDevice } from '#backup/vma/format.ts'
import type { VmaDevice } from '#backup/vma/header.ts'
import { namingFullStorage } from '#storage/full.ts'
import { type OpenArchive, openArchive } from './archive-file.ts'
import {
  drivesOfDevices,
  type ForeignConf,
  type ForeignDisk,
  foreignConfName,
  parseForeignConf,
} from './foreign-conf.ts'
import { type RestoredDrive, translateForeign } from './foreign-options.ts'
import { type RestoreDeps, openTarget } from './restore-disks.ts'

export interface RestoreArchiveRequest {
  readonly archive: string
  /** Guest the new volumes belong to. */
  readonly vmid: Vmid
  /** Where they go; without one, each where it was. */
  readonly storage?: string | undefined
  readonly services: RestoreDeps & { readonly clock: Clock }
  readonly rateBytesPerSecond?: number | undefined
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
  /** Share of the archive, 0 to 1. */
  readonly onProgress: (fraction: number) => void
  readonly signal: AbortSignal
}

export type RestoredArchive = {
  readonly disks: readonly RestoredDrive[]
  /** The guest's configuration with the new volumes in it. */
  readonly options: Record<string, string>
}

interface Plan {
  readonly device: VmaDevice
  readonly disk: ForeignDisk
  readonly storage: string
  readonly format: 'raw' | 'qcow2'
}

/** @throws Fault `invalid`, `damaged`, `exhausted`, `aborted`; volumes made so far stay for the undo */
export async function restoreArchive(request: RestoreArchiveRequest): Promise<RestoredArchive> {
  const { archive, log, warn, services } = request
  await using open = await openArchive(services.storage, archive)
  const { header } = open.reader
  log(`restoring ${archive} (a vma archive of ${new Date(header.ctime * 1000).toISOString()})`)
  if (!open.isGuarded) log('the archive is not packed: damage to the content of disks in it cannot be seen')
  const conf = confIn(open)
  const plans = await plansFor(request, conf, header.devices)
  const disks = await writeDisks(request, open, plans)
  for (const name of header.configs.keys()) {
    if (name !== foreignConfName) warn(`'${name}' of the archive is left out: this release has no use for it`)
  }
  const isDisc = (volid: VolumeId) => isDiscHere(services, volid)
  return { disks, options: await translateForeign(conf, { drives: disks, isDisc, log, warn }) }
}

/** As it stands in the archive, for a person to read. */
export async function foreignConfText(storage: RestoreDeps['storage'], archive: string): Promise<string> {
  await using open = await openArchive(storage, archive)
  parseForeignConf(confBytes(open))
  return confBytes(open).toString('utf8')
}

function confBytes({ reader }: OpenArchive): Buffer {
  const content = reader.header.configs.get(foreignConfName)
  if (content === undefined) throw new Fault('damaged', `the archive has no configuration '${foreignConfName}'`)
  return content
}

function confIn(open: OpenArchive): ForeignConf {
  return parseForeignConf(confBytes(open))
}

async function plansFor(
  { services, storage, log }: RestoreArchiveRequest,
  conf: ForeignConf,
  devices: readonly VmaDevice[],
): Promise<Plan[]> {
  const disks = devices.filter(({ name }) => name !== memoryDevice)
  if (disks.length < devices.length) log('the memory in the archive is left out: the guest will start anew')
  const drives = drivesOfDevices(
    conf,
    disks.map(({ name }) => name),
  )
  const plans: Plan[] = []
  for (const device of disks) {
    const disk = drives.get(device.name)
    if (!disk) throw new Error(`device ${device.name} is no drive`)
    const was = originOf(conf, disk)
    const target = storage ?? disk.storage ?? was.storage
    plans.push({ device, disk, ...(await placeFor(services, target, disk, was.format)) })
  }
  return plans
}

/** What the configuration tells of where a disk was. */
function originOf(
  conf: ForeignConf,
  { drive, format }: ForeignDisk,
): { storage?: string; format?: string | undefined } {
  const text = conf.options[drive] ?? ''
  const [, storage, name = ''] = /^(?:file=|volume=)?([a-zA-Z][a-zA-Z0-9._-]*):([^,]+)/.exec(text) ?? []
  const named = /\.(qcow2|raw)$/.exec(name)?.[1]
  return { ...(storage === undefined ? {} : { storage }), format: format ?? named }
}

async function placeFor(
  { storage }: RestoreDeps,
  target: string | undefined,
  { drive }: ForeignDisk,
  wished: string | undefined,
): Promise<Pick<Plan, 'storage' | 'format'>> {
  const remedy = 'Name a storage of this node for all disks: `--storage <storage>`.'
  if (target === undefined) throw new Fault('invalid', `the archive does not say where disk ${drive} was`, { remedy })
  try {
    const { formats } = storage.featuresOf(await storage.get(target))
    const format = formats.find((one) => one === (wished ?? 'raw')) ?? formats[0] ?? 'raw'
    return { storage: target, format }
  } catch (cause) {
    if (!isFault(cause, 'missing')) throw cause
    throw new Fault('missing', `${cause.message} here, where disk ${drive} was`, { cause, remedy })
  }
}

async function writeDisks(
  request: RestoreArchiveRequest,
  { reader, fileBytes }: OpenArchive,
  plans: readonly Plan[],
): Promise<RestoredDrive[]> {
  const { services, vmid, signal, log, onProgress, rateBytesPerSecond } = request
  const totalBytes = plans.reduce((sum, { device }) => sum + device.sizeBytes, 0)
  const restored: RestoredDrive[] = []
  await using opened = new AsyncDisposableStack()
  const targets = new Map<string, BlockTarget>()
  for (const { device, disk, storage, format } of plans) {
    // How much of a disk is data the archive does not tell; unpacked it is not less than packed.
    const neededBytes = Math.min(device.sizeBytes, Math.floor(fileBytes * (device.sizeBytes / totalBytes)))
    const { sizeBytes } = device
    const volid = await services.storage.allocate({ storage, vmid, sizeBytes, format, neededBytes })
    const target = opened.use(await openTarget({ services, vmid, signal }, disk.drive, volid, sizeBytes))
    targets.set(device.name, naming(target, request, disk.drive, volid))
    restored.push({ drive: disk.drive, volid, sizeBytes })
  }
  const written = await reader.restore(targets, { clock: services.clock, rateBytesPerSecond, signal, onProgress })
  for (const { drive, volid, sizeBytes } of restored) {
    const device = plans.find((plan) => plan.disk.drive === drive)?.device.name ?? ''
    const bytes = humanSize(written.get(device) ?? 0)
    log(`${drive}: restored as ${volid} (${bytes} of ${formatSize(sizeBytes)} written)`)
  }
  return restored
}

/** A full storage is named, and whose disk it was. */
function naming(target: BlockTarget, request: RestoreArchiveRequest, drive: string, volid: VolumeId): BlockTarget {
  const { storage } = splitVolumeId(volid)
  const writing = {
    storage,
    what: `disk ${drive} of guest ${request.vmid}`,
    availableBytes: async () => (await request.services.storage.status(storage)).availableBytes,
  }
  return {
    sizeBytes: target.sizeBytes,
    write: (offset, bytes) => namingFullStorage(writing, () => target.write(offset, bytes)),
    flush: () => namingFullStorage(writing, () => target.flush()),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  }
}

/** Another guest's disk is no disc, whatever the configuration calls it. */
async function isDiscHere({ storage }: RestoreDeps, volid: VolumeId): Promise<boolean> {
  try {
    return (await storage.describe(volid)).content === 'iso'
  } catch (fault) {
    if (isFault(fault)) return false
    throw fault
  }
}
