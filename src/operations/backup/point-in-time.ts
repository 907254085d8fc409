/**
 * Holds one moment of all disks of a running guest, for as long as a backup needs to read it.
 *
 * A copy-before-write filter goes between each disk and its device; from then on QEMU copies what the
 * guest is about to overwrite into a fleecing image first. `snapshot-access` over the filter is the disk
 * as it was, and is read through an NBD export on a unix socket. With several disks the processors are
 * held while the filters go in, so all disks are of one moment.
 *
 * Rejected: the job `blockdev-backup sync=none` in a transaction. It needs no pause, but in the QEMU we
 * support its filter has no `on-cbw-error`: a full fleecing image would fail the guest's own writes.
 * Here it breaks the snapshot (the backup fails, never the guest), and a write waits at most
 * `cbw-timeout`.
 *
 * Everything made carries the prefix `backup-`, and what must be taken back in the guest (processors
 * held, file systems frozen) is marked by a node of that prefix before it is done. So `tearDown` needs no
 * memory: it looks at QEMU, may run twice, and may run in another process after this one was killed.
 */
import { settled } from '#base/all-done.ts'
import { KiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { blockNodes, removeBlockNode } from '#guests/qemu/block-nodes.ts'
import { removeBitmap } from '#guests/qemu/dirty-bitmap.ts'
import { nodeNameOf } from '#guests/qemu/drive-device.ts'
import { isFirmwareDrive } from '#guests/qemu/drive.ts'
import { endJob, runJob } from '#guests/qemu/job.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'

export interface HeldDisk {
  /** `scsi0`; also the name of its export. */
  readonly drive: string
  readonly sizeBytes: number
  /** A file with nothing in it, which QEMU may write, and makes a qcow2 image. */
  readonly fleecePath: string
}

/**
 * QEMU copies in blocks of this size: that of the fleecing image's clusters. No read may reach beyond one of them
 * (`held-source.ts`), so it is that of a chunk; twice QEMU's own, which a guest's first write to a block waits for.
 */
export const copiedBytes = 128 * KiB

const prefix = 'backup-'
const marks = { resume: `${prefix}mark-resume`, thaw: `${prefix}mark-thaw` } as const
const filterOf = (drive: string) => `${prefix}cbw-${drive}`
const fleeceOf = (drive: string) => `${prefix}fleece-${drive}`
const fileOf = (drive: string) => `${prefix}file-${drive}`
const layOutOf = (drive: string) => `${prefix}lay-out-${drive}`
const accessOf = (drive: string) => `${prefix}access-${drive}`
const copyOf = (drive: string) => `${prefix}copy-${drive}`
const exportOf = (name: string) => `${prefix}export-${name}`
/** Name of the export of what was copied aside of a drive; the drive's own is that of the moment. */
export const copiedName = (drive: string): string => `${drive}-copied`
/** The bitmap a disk is read by. */
export const readRecordOf = (drive: string): string => `${prefix}read-${drive}`

/** A guest's write waits no longer for the copy of what it overwrites. */
const copyTimeoutSeconds = 45
const busyMs = 20_000

/** Lays out and opens the fleecing images and builds the filters; the guest does not notice yet. */
export async function prepareFilters(monitor: QmpClient, disks: readonly HeldDisk[]): Promise<void> {
  for (const { drive, sizeBytes, fleecePath } of disks) {
    const [file, discard] = [fileOf(drive), 'unmap']
    await monitor.execute('blockdev-add', { driver: 'file', 'node-name': file, filename: fleecePath, discard })
    const options = { driver: 'qcow2', file, size: sizeBytes, 'cluster-size': copiedBytes }
    await runJob(monitor, 'blockdev-create', { 'job-id': layOutOf(drive), options })
    await monitor.execute('blockdev-add', { driver: 'qcow2', 'node-name': fleeceOf(drive), discard, file })
    if (isFirmwareDrive(drive)) continue
    await requireCopiedBytes(monitor, fleeceOf(drive))
    await monitor.execute('blockdev-add', {
      driver: 'copy-before-write',
      'node-name': filterOf(drive),
      file: nodeNameOf(drive),
      target: fleeceOf(drive),
      'on-cbw-error': 'break-snapshot',
      'cbw-timeout': copyTimeoutSeconds,
    })
  }
}

/** What is read would be wrong if QEMU copied in smaller blocks. */
async function requireCopiedBytes(monitor: QmpClient, node: string): Promise<void> {
  interface Node {
    readonly 'node-name'?: string
    readonly image: { readonly 'cluster-size'?: number }
  }
  const nodes = await monitor.execute<readonly Node[]>('query-named-block-nodes', { flat: true })
  const clusterBytes = nodes.find((one) => one['node-name'] === node)?.image['cluster-size']
  if (clusterBytes !== copiedBytes) throw new Error(`the fleecing image ${node} has clusters of ${clusterBytes} bytes`)
}

/**
 * The moment: puts the filters under the devices. Returns how long the processors were held.
 * @param holds hold the processors even for a single disk
 * @param whileHeld what else is taken at that moment
 */
export async function insertFilters(
  monitor: QmpClient,
  disks: readonly HeldDisk[],
  holds: boolean,
  whileHeld: () => Promise<void> = async () => {},
): Promise<{ heldMs: number }> {
  const devices = await devicesByNode(monitor)
  const [small, large] = [
    disks.filter(({ drive }) => isFirmwareDrive(drive)),
    disks.filter(({ drive }) => !isFirmwareDrive(drive)),
  ]
  const places = large.map(({ drive }) => {
    const path = devices.get(nodeNameOf(drive))
    if (path === undefined) throw new Error(`no device of the guest uses the node of ${drive}`)
    return { path, filter: filterOf(drive) }
  })
  const insert = async () => {
    for (const { path, filter } of places) {
      await monitor.execute('qom-set', { path, property: 'drive', value: filter })
    }
    for (const disk of small) await copyWhole(monitor, disk)
    await whileHeld()
  }
  return holds || disks.length > 1 ? holdingProcessors(monitor, insert) : insert().then(() => ({ heldMs: 0 }))
}

/**
 * Runs `work` while the guest's processors are held, if they run, and nothing is on its way to a disk. Who is killed
 * meanwhile leaves it to `tearDown`.
 */
export async function holdingProcessors(monitor: QmpClient, work: () => Promise<void>): Promise<{ heldMs: number }> {
  const { running: isHeld } = await monitor.execute<{ running: boolean }>('query-status')
  const startedMs = performance.now()
  if (isHeld) {
    await addMark(monitor, marks.resume)
    await monitor.execute('stop')
  }
  try {
    await work()
  } finally {
    if (isHeld) await resume(monitor)
  }
  return { heldMs: isHeld ? Math.round(performance.now() - startedMs) : 0 }
}

/**
 * What the firmware remembers is copied whole: less than a MiB, while the processors are held. No filter can be put
 * between its flash and the file.
 */
async function copyWhole(monitor: QmpClient, { drive }: HeldDisk): Promise<void> {
  const job = { 'job-id': copyOf(drive), device: nodeNameOf(drive), target: fleeceOf(drive) }
  await runJob(monitor, 'blockdev-backup', { ...job, sync: 'full', 'auto-dismiss': false })
}

/**
 * Lets the moment be read at a unix socket, two exports per disk (`held-source.ts`).
 * @param isRecorded whether a disk has a bitmap by the name of `readRecordOf`
 */
export async function exportDisks(
  monitor: QmpClient,
  disks: readonly HeldDisk[],
  socket: string,
  isRecorded: (drive: string) => boolean = () => false,
): Promise<void> {
  await monitor.execute('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } })
  for (const { drive } of disks) {
    const access = isFirmwareDrive(drive) ? fleeceOf(drive) : accessOf(drive)
    if (!isFirmwareDrive(drive)) {
      await monitor.execute('blockdev-add', { driver: 'snapshot-access', 'node-name': access, file: filterOf(drive) })
    }
    const bitmaps = isRecorded(drive) ? [{ node: nodeNameOf(drive), name: readRecordOf(drive) }] : []
    const shown = { 'node-name': access, name: drive, bitmaps }
    await monitor.execute('block-export-add', { type: 'nbd', id: exportOf(drive), ...shown })
    const copied = { 'node-name': fleeceOf(drive), name: copiedName(drive) }
    await monitor.execute('block-export-add', { type: 'nbd', id: exportOf(copied.name), ...copied })
  }
}

/** To be called before file systems are frozen; `tearDown` then thaws them when nobody else did. */
export async function markFrozen(monitor: QmpClient): Promise<void> {
  await addMark(monitor, marks.thaw)
}

export async function unmarkFrozen(monitor: QmpClient): Promise<void> {
  await monitor.execute('blockdev-del', { 'node-name': marks.thaw })
}

/** Takes everything out again that this file puts in, whatever is there of it. */
export async function tearDown(monitor: QmpClient, thaw: () => Promise<void>): Promise<void> {
  const nodes = (await blockNodes(monitor)).filter((name) => name.startsWith(prefix))
  if (nodes.includes(marks.resume)) await resume(monitor)
  // A guest that does not thaw must not keep its filters as well; the failure is told in the end.
  const thawed = nodes.includes(marks.thaw) ? await settled(thaw().then(() => unmarkFrozen(monitor))) : undefined
  await removeExports(monitor)
  const drives = among(nodes, filterOf)
  for (const drive of drives) {
    await removeBlockNode(monitor, accessOf(drive))
    await removeBitmap(monitor, drive, readRecordOf(drive))
  }
  const devices = await devicesByNode(monitor)
  for (const drive of drives) {
    const path = devices.get(filterOf(drive))
    if (path !== undefined) await monitor.execute('qom-set', { path, property: 'drive', value: nodeNameOf(drive) })
    await removeBlockNode(monitor, filterOf(drive))
  }
  for (const drive of among(nodes, fileOf)) {
    await endJob(monitor, layOutOf(drive))
    if (isFirmwareDrive(drive)) await endJob(monitor, copyOf(drive))
    await removeBlockNode(monitor, fleeceOf(drive))
    await removeBlockNode(monitor, fileOf(drive))
  }
  if (thawed?.status === 'rejected') throw thawed.reason
}

/** Drives of which there is such a node. */
function among(nodes: readonly string[], nodeOf: (drive: string) => string): string[] {
  return nodes.filter((name) => name.startsWith(nodeOf(''))).map((name) => name.slice(nodeOf('').length))
}

async function resume(monitor: QmpClient): Promise<void> {
  await monitor.execute('cont')
  await monitor.execute('blockdev-del', { 'node-name': marks.resume })
}

/** A node that holds nothing, only its name. */
async function addMark(monitor: QmpClient, name: string): Promise<void> {
  await monitor.execute('blockdev-add', { driver: 'null-co', 'node-name': name, 'read-zeroes': true })
}

async function removeExports(monitor: QmpClient): Promise<void> {
  const list = () => monitor.execute<readonly { readonly id: string }[]>('query-block-exports')
  const isOurs = ({ id }: { readonly id: string }) => id.startsWith(prefix)
  for (const { id } of (await list()).filter(isOurs)) await monitor.execute('block-export-del', { id, mode: 'hard' })
  const rest = await waitFor(
    async () => {
      const exports = await list()
      return exports.some(isOurs) ? undefined : exports
    },
    { what: 'the end of the backup exports', timeoutMs: busyMs },
  )
  // The server is QEMU's only one: somebody else may use it.
  if (rest.length > 0) return
  try {
    await monitor.execute('nbd-server-stop')
  } catch (cause) {
    if (!isFault(cause, 'failed') || !/not running/i.test(cause.message)) throw cause
  }
}

/** Path of the device that uses each block node. */
async function devicesByNode(monitor: QmpClient): Promise<Map<string, string>> {
  const devices =
    await monitor.execute<readonly { readonly qdev?: string; readonly inserted?: { readonly 'node-name'?: string } }[]>(
      'query-block',
    )
  const paths = new Map<string, string>()
  for (const { qdev, inserted } of devices) {
    const node = inserted?.['node-name']
    if (qdev === undefined || node === undefined) continue
    // QEMU gives a device's id where it has one, else its path.
    paths.set(node, qdev.startsWith('/') ? qdev : `/machine/peripheral/${qdev}`)
  }
  return paths
}
