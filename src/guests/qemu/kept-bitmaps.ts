/**
 * Records of what a guest writes to raw disks, from the end of one QEMU to the start of the next.
 *
 * A raw image has no place for them, so they are put aside in an image that has nothing else, in a directory of root's
 * beside the guest's own. They are true as long as nobody writes to the disk, and that the kernel tells
 * (`file-state.ts`): the state of the disk is taken while QEMU has it open and the guest stands still, again when QEMU
 * has gone, and both must be the same.
 *
 * Invariants: they are put aside only while the guest stands still and no job is at work, so they say all that was
 * written. The file that says what they are worth is written last of all, after QEMU has gone; without it they are
 * worth nothing. They are taken away before the guest runs again, so they are believed once. A bitmap in a new QEMU
 * records only when it has everything of the old one; until then it is not whole. Whatever does not hold, or fails,
 * costs a look at the whole disk, and never a start or a stop.
 *
 * They end with the run of the kernel, as everything beside a guest's directory does.
 */
import { chmod, chown, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { codeOf, makeDirectory, readIfPresent, writeFileAtomic } from '#host/files.ts'
import { type FileState, fileState, isSameState, settledFileState } from '#host/files/file-state.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import type { Options } from '../config.ts'
import type { GuestStorage } from '../needs.ts'
import { removeBlockNode } from './block-nodes.ts'
import { bitmapsOf, type DirtyBitmap, mergeBitmap, passingBitmaps } from './dirty-bitmap.ts'
import { nodeNameOf } from './drive-device.ts'
import { drivesOf, volumeIn } from './drive.ts'
import { runJob } from './job.ts'

/** The guest and its disks. */
export interface KeepPlace {
  readonly runDir: string
  readonly uid: number
  readonly options: Options
  readonly storage: Pick<GuestStorage, 'location'>
}

interface RecordedDisk {
  readonly drive: string
  readonly volid: VolumeId
  readonly path: string
  readonly sizeBytes: number
  readonly names: readonly string[]
}

interface KeptDisk {
  readonly drive: string
  readonly volid: VolumeId
  readonly path: string
  readonly state: FileState
  readonly bitmaps: readonly DirtyBitmap[]
}

export interface SetAside {
  readonly directory: string
  readonly disks: readonly KeptDisk[]
}

/** Parent of a directory for each time something is put aside. */
const keptDirOf = (runDir: string) => `${runDir}.kept`
const factsIn = (directory: string) => join(directory, 'facts.json')
const imageIn = (directory: string, drive: string) => join(directory, `${drive}.qcow2`)
const imageNode = (drive: string) => `kept-${drive}`
const fileNode = (drive: string) => `kept-file-${drive}`

/** Whether anything would be lost with this QEMU that can be put aside. */
export async function hasBitmapsToKeep(monitor: QmpClient, place: KeepPlace): Promise<boolean> {
  return (await disksToKeep(monitor, place)).length > 0
}

async function disksToKeep(monitor: QmpClient, { options, storage }: KeepPlace): Promise<RecordedDisk[]> {
  const disks: RecordedDisk[] = []
  for (const { node, path, sizeBytes, names } of await passingBitmaps(monitor)) {
    const drive = drivesOf(options).find(({ name }) => nodeNameOf(name) === node)?.name ?? ''
    const volid = volumeIn(drive, options[drive] ?? '')
    if (volid === undefined) continue
    const place = await storage.location(volid)
    if (place.format !== 'raw' || place.path !== path || !(await fileState(path))) continue
    disks.push({ drive, volid, path, sizeBytes, names })
  }
  return disks
}

/**
 * Puts them aside and leaves the guest halted, to be ended at once. Nothing: there are none, and the guest goes on.
 * @param beforeHalt called before the guest is halted
 */
export async function setBitmapsAside(
  monitor: QmpClient,
  place: KeepPlace,
  beforeHalt: () => Promise<void>,
): Promise<SetAside | undefined> {
  const found = await disksToKeep(monitor, place)
  if (found.length === 0) return undefined
  await forgetKeptBitmaps(place.runDir)
  await makeDirectory(keptDirOf(place.runDir))
  const directory = await mkdtemp(join(keptDirOf(place.runDir), 'aside-'))
  // QEMU may open what is in it, and put nothing there.
  await chmod(directory, 0o711)
  for (const disk of found) await addImage(monitor, imageIn(directory, disk.drive), disk, place.uid)
  await beforeHalt()
  // From here on nothing is written, nor on its way to a disk.
  await monitor.execute('stop')
  await requireNoJob(monitor)
  const disks: KeptDisk[] = []
  for (const { drive, volid, path, names } of found) {
    for (const name of names)
      await mergeBitmap(monitor, name, nodeNameOf(drive), imageNode(drive), { persistent: true })
    const state = await fileState(path)
    const bitmaps = (await bitmapsOf(monitor, nodeNameOf(drive))).filter(({ name }) => names.includes(name))
    if (state) disks.push({ drive, volid, path, state, bitmaps })
  }
  // QEMU writes them down as it closes their image.
  for (const { drive } of found) await removeImage(monitor, drive)
  return { directory, disks }
}

/** To be called when QEMU has gone: what was put aside is good from now on, for disks that are as they were. */
export async function vouchFor({ directory, disks }: SetAside, clock: Clock): Promise<void> {
  const good: KeptDisk[] = []
  for (const disk of disks) {
    const state = await settledFileState(disk.path, clock)
    if (state && isSameState(state, disk.state)) good.push(disk)
  }
  await writeFileAtomic(factsIn(directory), JSON.stringify(good), 0o600, true)
}

/**
 * Lets bitmaps go on in a QEMU that has the disks open and has not run the guest yet, and takes away what was put aside.
 * @param onFailure told of each disk whose bitmaps do not go on
 * @returns the drives whose bitmaps do
 */
export async function putBitmapsBack(
  monitor: QmpClient,
  place: KeepPlace,
  onFailure: (drive: string, cause: unknown) => void,
): Promise<string[]> {
  const drives: string[] = []
  for (const { directory, disks } of await readKept(place.runDir)) {
    for (const disk of disks) {
      try {
        if (await putBack(monitor, place, disk, imageIn(directory, disk.drive))) drives.push(disk.drive)
      } catch (cause) {
        onFailure(disk.drive, cause)
      }
    }
  }
  await forgetKeptBitmaps(place.runDir)
  return drives
}

/** They are of no use any more. Harmless when there are none. */
export async function forgetKeptBitmaps(runDir: string): Promise<void> {
  await rm(keptDirOf(runDir), { recursive: true, force: true })
}

async function putBack(monitor: QmpClient, place: KeepPlace, disk: KeptDisk, image: string): Promise<boolean> {
  const { drive, volid, path, bitmaps } = disk
  if (volumeIn(drive, place.options[drive] ?? '') !== volid) return false
  // QEMU has it open by now: what is the same after that is the same until the guest runs.
  const state = (await place.storage.location(volid)).path === path ? await fileState(path) : undefined
  if (!state || !isSameState(state, disk.state)) return false
  const node = imageNode(drive)
  const file = { driver: 'file', filename: image, 'read-only': true }
  await monitor.execute('blockdev-add', { driver: 'qcow2', 'node-name': node, 'read-only': true, file })
  try {
    const stored = await bitmapsOf(monitor, node)
    for (const { name, dirtyBytes } of bitmaps) {
      const isStored = stored.some((one) => one.name === name && one.isWhole && one.dirtyBytes === dirtyBytes)
      if (!isStored) throw new Fault('failed', `QEMU did not store the bitmap '${name}'`)
    }
    for (const { name } of bitmaps) await mergeBitmap(monitor, name, node, nodeNameOf(drive), { disabled: true })
    for (const { name } of bitmaps) {
      await monitor.execute('block-dirty-bitmap-enable', { node: nodeNameOf(drive), name })
    }
    return true
  } finally {
    await removeBlockNode(monitor, node)
  }
}

async function addImage(monitor: QmpClient, path: string, disk: RecordedDisk, uid: number): Promise<void> {
  const [node, file] = [imageNode(disk.drive), fileNode(disk.drive)]
  await writeFile(path, '', { mode: 0o600, flag: 'wx' })
  await chown(path, uid, uid)
  await monitor.execute('blockdev-add', { driver: 'file', 'node-name': file, filename: path })
  const options = { driver: 'qcow2', file, size: disk.sizeBytes }
  await runJob(monitor, 'blockdev-create', { 'job-id': node, options }, { everyMs: 2 })
  await monitor.execute('blockdev-add', { driver: 'qcow2', 'node-name': node, file })
}

async function removeImage(monitor: QmpClient, drive: string): Promise<void> {
  await removeBlockNode(monitor, imageNode(drive))
  await removeBlockNode(monitor, fileNode(drive))
}

/** A job may write to a disk while the guest stands still. */
async function requireNoJob(monitor: QmpClient): Promise<void> {
  const [job] = await monitor.execute<readonly { readonly id: string }[]>('query-jobs')
  if (job) throw new Fault('conflict', `job '${job.id}' of QEMU is at work`)
}

async function readKept(runDir: string): Promise<SetAside[]> {
  const kept: SetAside[] = []
  for (const name of await namesIn(keptDirOf(runDir))) {
    const directory = join(keptDirOf(runDir), name)
    const text = await readIfPresent(factsIn(directory))
    // Written whole, by this program.
    if (text !== undefined) kept.push({ directory, disks: JSON.parse(text) as KeptDisk[] })
  }
  return kept
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return []
    throw cause
  }
}
