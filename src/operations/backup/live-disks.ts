/**
 * Runs a guest from its backup while its disks are still on their way.
 *
 * Each disk is new and empty, and lies on top of what the backup holds, which this process serves: what the guest has not
 * written is read from there, and at the same time everything is copied over, until nothing is left below. As long as
 * that takes the guest needs this process; should it die, the guest waits for content rather than being told that its
 * disk is broken, until the undo takes it away. What it wrote until then goes with it, as with any restore that failed.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { BackupReader } from '#datastore/backup-reader.ts'
import type { DiskReader } from '#datastore/disk-reader.ts'
import { messageOf } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { endJob, untilEnd } from '#guests/qemu/job.ts'
import { nodeNameOf } from '#guests/qemu/drive-device.ts'
import type { GuestService } from '#guests/service.ts'
import { exportDisk, type ReadableDisk } from '#host/nbd-export.ts'

export interface LiveDisksRequest {
  readonly reader: BackupReader
  readonly vmid: Vmid
  /** Drives whose content is still in the backup alone. */
  readonly drives: readonly string[]
  readonly guests: GuestService
  readonly runDir: string
  readonly bytesPerSecond: number
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
  readonly progress: (what: string, fraction: number) => void
  readonly signal: AbortSignal
}

/** Chunks kept decompressed: guests read a chunk in many small pieces. */
const keptChunks = 64
const socketOf = (runDir: string, vmid: Vmid, drive: string) => join(runDir, `restore-${vmid}-${drive}.sock`)
const jobOf = (drive: string) => `fill-${drive}`

/**
 * @param start starts the guest, given the socket of what is below each drive
 * @throws Fault with QEMU's words; the guest runs then, and depends on what is no longer served
 */
export async function fillWhileRunning(
  request: LiveDisksRequest,
  start: (below: Readonly<Record<string, string>>) => Promise<void>,
): Promise<void> {
  const { reader, vmid, drives, guests, runDir, log, warn, progress, signal } = request
  const below: Record<string, string> = {}
  await using served = new AsyncDisposableStack()
  for (const drive of drives) {
    const socket = socketOf(runDir, vmid, drive)
    const disk = keeping(await reader.openDisk(drive))
    const onError = (cause: unknown) => warn(`${drive}: the guest asked for what cannot be read: ${messageOf(cause)}`)
    served.use(await exportDisk({ socket, uid: guests.uidOf(vmid), disk, onError }))
    below[drive] = socket
  }
  await start(below)
  log('the guest runs; its disks are copied meanwhile')
  await using monitor = await guests.qmp(vmid, 'long', signal)
  // All at once would make each slower, and the guest with them.
  for (const [number, drive] of drives.entries()) {
    await monitor.execute('block-stream', {
      'job-id': jobOf(drive),
      device: nodeNameOf(drive),
      'auto-dismiss': false,
      // What cannot be read must not become zeros.
      'on-error': 'report',
      speed: request.bytesPerSecond,
    })
    const onProgress = (fraction: number) => progress(`copy ${drive}`, (number + fraction) / drives.length)
    try {
      await untilEnd(monitor, jobOf(drive), { onProgress, signal })
    } catch (cause) {
      if (signal.aborted) await endJob(monitor, jobOf(drive))
      throw cause
    }
    log(`${drive}: all of it is there`)
  }
}

/** Removes what a process that died while it served has left. */
export async function forgetServed(runDir: string, vmid: Vmid, drives: readonly string[]): Promise<void> {
  for (const drive of drives) await rm(socketOf(runDir, vmid, drive), { force: true })
}

/** Reads whole chunks and keeps the last ones. */
function keeping(disk: Pick<DiskReader, 'sizeBytes' | 'chunkBytes' | 'read'>): ReadableDisk {
  const { chunkBytes } = disk
  const kept = new Map<number, Promise<Buffer>>()
  const chunkAt = (position: number) => {
    const known = kept.get(position)
    kept.delete(position)
    const chunk = known ?? readChunk(disk, position)
    kept.set(position, chunk)
    // What could not be read may be readable the next time.
    chunk.catch(() => kept.delete(position))
    for (const oldest of kept.keys()) {
      if (kept.size <= keptChunks) break
      kept.delete(oldest)
    }
    return chunk
  }
  return {
    sizeBytes: disk.sizeBytes,
    async read(offset, into) {
      for (let at = 0; at < into.length;) {
        const position = Math.floor((offset + at) / chunkBytes)
        const skip = offset + at - position * chunkBytes
        const part = (await chunkAt(position)).subarray(skip, skip + into.length - at)
        into.set(part, at)
        at += part.length
      }
    },
  }
}

async function readChunk(
  disk: Pick<DiskReader, 'sizeBytes' | 'chunkBytes' | 'read'>,
  position: number,
): Promise<Buffer> {
  const { chunkBytes } = disk
  const offset = position * chunkBytes
  const content = Buffer.alloc(Math.min(chunkBytes, disk.sizeBytes - offset))
  await disk.read(offset, content)
  return content
}
