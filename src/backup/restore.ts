/**
 * Writes a disk of a backup to a target: every chunk checked, holes left holes.
 *
 * Neighbouring chunks of one pack are fetched in one read, a few reads ahead; checking and decompressing
 * happen on this thread while reads and writes are under way. Nothing that failed its check is written.
 */
import { Fault } from '#base/fault.ts'
import type { Digest } from '#base/ids.ts'
import { type BlockTarget, fileTarget } from './block-target.ts'
import { chunkBytes, readBytes, readsAhead } from './format.ts'
import { TreeDigest } from './digest.ts'
import type { IndexEntry } from './index-file.ts'
import type { BackupReader } from './reader.ts'
import { readAhead } from './window.ts'

export interface RestoreProgress {
  readonly disk: string
  /** Position on the disk, holes included. */
  readonly doneBytes: number
  readonly sizeBytes: number
}

export interface RestoreOptions {
  readonly onProgress?: (progress: RestoreProgress) => void
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
  readonly entries: IndexEntry[]
  readonly length: number
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
  { onProgress, signal }: RestoreOptions,
): Promise<RestoredDisk> {
  const disk = reader.disk(name)
  const { sizeBytes } = disk
  if (target.sizeBytes < sizeBytes) throw new Fault('invalid', `the target is smaller than disk ${name} of the backup`)
  const tree = new TreeDigest(sizeBytes)
  const [fetching, writing] = [new Stopwatch(), new Stopwatch()]
  let writtenBytes = 0
  const batches = readAhead(neighbours(disk.entries()), readsAhead, async (batch) => {
    const [first] = batch.entries
    if (!first) throw new Error('a batch is empty')
    return { batch, bytes: await reader.fetch(first.pack, first.offset, batch.length) }
  })
  const results = batches[Symbol.asyncIterator]()
  for (;;) {
    const next = await fetching.during(() => results.next())
    if (next.done) break
    if (signal?.aborted) {
      await results.return(undefined)
      throw new Fault('aborted', `the restore of disk ${name} was interrupted`)
    }
    const { batch, bytes } = next.value
    let at = 0
    const writes: { offset: number; plain: Buffer }[] = []
    for (const entry of batch.entries) {
      const blob = bytes.subarray(at, (at += entry.length))
      const offset = entry.position * chunkBytes
      const plain = await fetching.during(() => reader.decode(blob, entry))
      if (plain.length !== Math.min(chunkBytes, sizeBytes - offset)) {
        throw new Fault('damaged', `index ${name} is damaged: chunk ${entry.position} has ${plain.length} bytes`)
      }
      tree.add(entry.position, entry.digest)
      writes.push({ offset, plain })
      writtenBytes += plain.length
    }
    await writing.during(() => Promise.all(writes.map(({ offset, plain }) => target.write(offset, plain))))
    onProgress?.({ disk: name, doneBytes: ((batch.entries.at(-1)?.position ?? 0) + 1) * chunkBytes, sizeBytes })
  }
  await writing.during(() => target.flush())
  onProgress?.({ disk: name, doneBytes: sizeBytes, sizeBytes })
  const digest = tree.end()
  if (digest !== disk.facts.digest) {
    throw new Fault(
      'damaged',
      `index ${name} is damaged: the restored disk has digest ${digest}, not ${disk.facts.digest}`,
    )
  }
  return { sizeBytes, writtenBytes, digest, fetchMs: fetching.ms, writeMs: writing.ms }
}

async function* neighbours(entries: AsyncIterable<IndexEntry>): AsyncGenerator<Batch> {
  let batch: { entries: IndexEntry[]; length: number } | undefined
  for await (const entry of entries) {
    const last = batch?.entries.at(-1)
    const isNext = last?.pack === entry.pack && last.offset + last.length === entry.offset
    if (batch && isNext && batch.length + entry.length <= readBytes) {
      batch.entries.push(entry)
      batch.length += entry.length
      continue
    }
    if (batch) yield batch
    batch = { entries: [entry], length: entry.length }
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
