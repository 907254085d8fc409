/** Writes a disk of a backup to a target that reads as zeros. */
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { type BlockTarget, fileTarget } from './block-target.ts'
import { readAhead } from '../window.ts'
import type { BackupReader, DiskPart } from './reader.ts'

const runsAhead = 4
const writesAhead = 4

export interface RestoreProgress {
  readonly disk: string
  readonly doneBytes: number
  readonly sizeBytes: number
}

export interface RestoreOptions {
  readonly onProgress?: ((progress: RestoreProgress) => void) | undefined
  /** Upper bound of what is written. */
  readonly rateBytesPerSecond?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * @param target a raw image file or block device that exists and reads as zeros, or any target
 * @returns bytes written; the rest is zero
 * @throws Fault `damaged` naming pack and chunk, `exhausted` when the target is full, `aborted`
 */
export async function restoreDisk(
  reader: BackupReader,
  name: string,
  target: string | BlockTarget,
  options: RestoreOptions = {},
): Promise<number> {
  const { sizeBytes } = reader.disk(name)
  if (typeof target !== 'string') return restoreTo(reader, name, target, options)
  await using file = await fileTarget(target, sizeBytes)
  return await restoreTo(reader, name, file, options)
}

async function restoreTo(
  reader: BackupReader,
  name: string,
  target: BlockTarget,
  { onProgress, rateBytesPerSecond, signal }: RestoreOptions,
): Promise<number> {
  const { sizeBytes, dataBytes } = reader.disk(name)
  if (target.sizeBytes < sizeBytes) throw new Fault('invalid', `the target is smaller than disk ${name} of the backup`)
  const startedMs = systemClock.monotonic()
  let written = 0
  const free = Array.from({ length: runsAhead + writesAhead + 1 }, () => reader.roomForRun())
  const filled = readAhead(reader.runs(name, { isInOrder: false }), runsAhead, async (read) => {
    const room = free.pop()
    return { parts: await read(room), room }
  })
  // Writes begin in order, and a few are under way at once: what goes past the page cache waits for the disk.
  const done = readAhead(filled, writesAhead, async ({ parts, room }) => {
    await Promise.all(joined(parts).map(({ offset, content }) => target.write(offset, content)))
    if (room) free.push(room)
    return parts
  })
  for await (const parts of done) {
    if (signal?.aborted) throw new Fault('aborted', `the restore of disk ${name} was interrupted`)
    for (const { content } of parts) written += content.length
    // Holes take no time.
    const doneBytes = Math.min(sizeBytes, Math.floor((written / Math.max(1, dataBytes)) * sizeBytes))
    onProgress?.({ disk: name, doneBytes, sizeBytes })
    const aheadMs = rateBytesPerSecond
      ? (written / rateBytesPerSecond) * 1000 - (systemClock.monotonic() - startedMs)
      : 0
    if (aheadMs > 0) await systemClock.sleep(aheadMs, signal)
  }
  await target.flush()
  onProgress?.({ disk: name, doneBytes: sizeBytes, sizeBytes })
  return written
}

/** Parts next to each other, on the disk and in memory, become one write. */
function joined(parts: readonly DiskPart[]): DiskPart[] {
  const writes: { offset: number; content: Buffer }[] = []
  for (const { offset, content } of parts) {
    const last = writes.at(-1)
    const isNext =
      last !== undefined &&
      last.offset + last.content.length === offset &&
      last.content.buffer === content.buffer &&
      last.content.byteOffset + last.content.length === content.byteOffset
    if (isNext) {
      const { byteOffset, length } = last.content
      last.content = Buffer.from(content.buffer, byteOffset, length + content.length)
    } else writes.push({ offset, content })
  }
  return writes
}
