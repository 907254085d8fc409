/**
 * Writes a disk of a backup to a target: every chunk checked, holes left holes.
 *
 * Neighbouring chunks of one pack are fetched in one read, a few reads ahead; checking and decompressing
 * happen on this thread while reads and writes are under way. Nothing that failed its check is written.
 */
import { readBytes, readsAhead } from '#datastore/format.ts'
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Digest } from '#base/ids.ts'
import { type BlockTarget, fileTarget } from '#datastore/block-target.ts'
import { chunkBytes } from './format.ts'
import { TreeDigest } from './digest.ts'
import type { IndexEntry } from './index-file.ts'
import type { BackupReader } from './reader.ts'
import { readAhead } from '#datastore/window.ts'

export interface RestoreProgress {
  readonly disk: string
  /** Position on the disk, holes included. */
  readonly doneBytes: number
  readonly sizeBytes: number
}

export interface RestoreOptions {
  readonly onProgress?: (progress: RestoreProgress) => void
  /** Upper bound of what is written. */
  readonly rateBytesPerSecond?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface RestoredDisk {
  readonly sizeBytes: number
  /** Bytes written; the rest is zero. */
  readonly writtenBytes: number
  /** Tree digest (see `digest.ts`) of what was written, equal to the manifest's. */
  readonly digest: Digest
  /** Time spent waiting for packs, and checking and decompressing. */
  readonly fetchMs: number
  /** Time spent waiting for the target, its last sync included. */
  readonly writeMs: number
}

/** Neighbouring blobs of one pack, which are also next to each other on the disk or at least in order. */
interface Batch {
  readonly first: IndexEntry
  readonly entries: readonly IndexEntry[]
  /** In the pack. */
  readonly length: number
  /** Where it ends on the disk. */
  readonly endBytes: number
}

const batchChunks = readBytes / chunkBytes

/** Chunks next to each other on the disk, written in one go. */
interface Write {
  readonly offset: number
  readonly parts: Buffer[]
  lengthBytes: number
}

/**
 * Restores to a raw image file or block device that exists and reads as zeros, or to any `BlockTarget`.
 * @throws Fault `damaged` naming the chunk, `exhausted` when the target is full, `aborted`
 */
export async function restoreDisk(
  reader: BackupReader,
  name: string,
  target: string | BlockTarget,
  options: RestoreOptions = {},
): Promise<RestoredDisk> {
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
): Promise<RestoredDisk> {
  const disk = reader.disk(name)
  const { sizeBytes } = disk
  if (target.sizeBytes < sizeBytes) throw new Fault('invalid', `the target is smaller than disk ${name} of the backup`)
  const tree = new TreeDigest(sizeBytes)
  const [fetching, writing] = [new Stopwatch(), new Stopwatch()]
  const batches = readAhead(neighbours(disk.entries()), readsAhead, async (batch) => {
    return { batch, bytes: await reader.fetch(batch.first.pack, batch.first.offset, batch.length) }
  })
  const startedMs = systemClock.monotonic()
  let writtenBytes = 0
  try {
    for (;;) {
      const next = await fetching.during(() => batches.next())
      if (next.done) break
      if (signal?.aborted) throw new Fault('aborted', `the restore of disk ${name} was interrupted`)
      const { batch, bytes } = next.value
      const writes = await fetching.during(() => decoded(reader, name, batch, bytes))
      for (const { position, digest } of batch.entries) tree.add(position, digest)
      await writing.during(() =>
        Promise.all(writes.map(({ offset, parts }) => target.write(offset, Buffer.concat(parts)))),
      )
      writtenBytes += writes.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
      onProgress?.({ disk: name, doneBytes: Math.min(sizeBytes, batch.endBytes), sizeBytes })
      const tookMs = systemClock.monotonic() - startedMs
      const aheadMs = rateBytesPerSecond ? (writtenBytes / rateBytesPerSecond) * 1000 - tookMs : 0
      if (aheadMs > 0) await systemClock.sleep(aheadMs, signal)
    }
  } finally {
    // Reads still under way must not outlive the reader.
    await batches.return(undefined)
  }
  await writing.during(() => target.flush())
  onProgress?.({ disk: name, doneBytes: sizeBytes, sizeBytes })
  const digest = tree.end()
  if (digest !== disk.facts.digest) throw damagedIndex(name, `the restored disk has digest ${digest}`)
  return { sizeBytes, writtenBytes, digest, fetchMs: fetching.ms, writeMs: writing.ms }
}

/** Checks and decompresses the chunks of a batch. */
async function decoded(reader: BackupReader, name: string, batch: Batch, bytes: Buffer): Promise<Write[]> {
  const { sizeBytes } = reader.disk(name)
  const writes: Write[] = []
  let at = 0
  for (const entry of batch.entries) {
    const plain = await reader.decode(bytes.subarray(at, at + entry.length), entry)
    at += entry.length
    const offset = entry.position * chunkBytes
    if (plain.length !== Math.min(chunkBytes, sizeBytes - offset)) {
      throw damagedIndex(name, `chunk ${entry.position} has ${plain.length} bytes`)
    }
    const last = writes.at(-1)
    if (last && last.offset + last.lengthBytes === offset) {
      last.parts.push(plain)
      last.lengthBytes += plain.length
    } else writes.push({ offset, parts: [plain], lengthBytes: plain.length })
  }
  return writes
}

function damagedIndex(name: string, how: string): Fault {
  return new Fault('damaged', `index ${name} is damaged: ${how}`)
}

async function* neighbours(entries: AsyncIterable<IndexEntry>): AsyncGenerator<Batch> {
  let batch: { first: IndexEntry; entries: IndexEntry[]; length: number; endBytes: number } | undefined
  for await (const entry of entries) {
    const last = batch?.entries.at(-1)
    const isNext = last?.pack === entry.pack && last.offset + last.length === entry.offset
    const endBytes = (entry.position + 1) * chunkBytes
    // By count, too: blobs of well compressed chunks are tiny, what comes out of them is not.
    if (batch && isNext && batch.entries.length < batchChunks) {
      batch.entries.push(entry)
      batch.length += entry.length
      batch.endBytes = endBytes
      continue
    }
    if (batch) yield batch
    batch = { first: entry, entries: [entry], length: entry.length, endBytes }
  }
  if (batch) yield batch
}

class Stopwatch {
  ms = 0

  async during<T>(work: () => Promise<T>): Promise<T> {
    const started = performance.now()
    try {
      return await work()
    } finally {
      this.ms += performance.now() - started
    }
  }
}
