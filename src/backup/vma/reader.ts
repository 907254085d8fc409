/**
 * Reads a `vma` archive from beginning to end, as a stream: never more than its header and two extents are in
 * memory. Devices are interleaved in it, so all targets are written at once.
 */
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { keptRate } from '#base/kept-rate.ts'
import type { BlockTarget } from '#datastore/restore/block-target.ts'
import { ByteStream } from './byte-stream.ts'
import { Coverage } from './coverage.ts'
import { type Piece, parseExtentHeader, piecesOf } from './extent.ts'
import { clusterBytes, extentHeaderBytes, fixedHeaderBytes, memoryDevice } from './format.ts'
import { damaged, headerBytesIn, parseHeader, type VmaHeader } from './header.ts'

export interface VmaRestoreOptions {
  readonly clock: Clock
  /** Upper bound of what is written. */
  readonly rateBytesPerSecond?: number | undefined
  readonly signal?: AbortSignal | undefined
  /** Share of the archive, 0 to 1. */
  readonly onProgress?: ((fraction: number) => void) | undefined
}

export class VmaReader implements AsyncDisposable {
  readonly header: VmaHeader
  readonly #stream: ByteStream

  private constructor(header: VmaHeader, stream: ByteStream) {
    this.header = header
    this.#stream = stream
  }

  /** Reads and checks the header; the caller disposes of the reader. @throws Fault `invalid`, `damaged` */
  static async open(pieces: AsyncIterable<Uint8Array>): Promise<VmaReader> {
    const stream = new ByteStream(pieces)
    try {
      const fixed = Buffer.alloc(fixedHeaderBytes)
      const size = headerBytesIn(fixed.subarray(0, await stream.fill(fixed)))
      const whole = Buffer.concat([fixed, Buffer.alloc(size - fixedHeaderBytes)])
      if ((await stream.fill(whole.subarray(fixedHeaderBytes))) < size - fixedHeaderBytes) {
        throw damaged('it ends within its header')
      }
      return new VmaReader(parseHeader(whole), stream)
    } catch (cause) {
      await stream[Symbol.asyncDispose]()
      throw cause
    }
  }

  /**
   * Writes every device to its target; those of others are read, checked and left out.
   * @param targets by device name; they read as zeros
   * @returns bytes written to each
   * @throws Fault `damaged` saying where, `exhausted`, `aborted`
   */
  async restore(targets: ReadonlyMap<string, BlockTarget>, options: VmaRestoreOptions): Promise<Map<string, number>> {
    const { clock, rateBytesPerSecond, signal, onProgress } = options
    const written = new Map([...targets.keys()].map((name) => [name, 0]))
    const keepRate = keptRate(rateBytesPerSecond, { clock, signal })
    const all = this.header.devices.reduce((sum, { sizeBytes }) => sum + Math.ceil(sizeBytes / clusterBytes), 0)
    let [writing, total, clusters]: [Promise<unknown>, number, number] = [Promise.resolve(), 0, 0]
    try {
      for await (const { pieces, count } of this.#extents()) {
        // The next extent was read while this one's neighbour was being written.
        await writing
        if (signal?.aborted) throw new Fault('aborted', 'the restore was interrupted')
        const writes: Promise<void>[] = []
        for (const { device, offset, bytes } of pieces) {
          const target = targets.get(device.name)
          if (!target) continue
          writes.push(target.write(offset, bytes))
          written.set(device.name, (written.get(device.name) ?? 0) + bytes.length)
          total += bytes.length
        }
        writing = Promise.all(writes)
        writing.catch(() => {}) // Thrown above, when the next extent is there.
        clusters += count
        onProgress?.(Math.min(1, clusters / all))
        await keepRate(total)
      }
      await writing
    } finally {
      // Nobody may still write once the targets are closed.
      await Promise.allSettled([writing])
    }
    for (const target of targets.values()) await target.flush()
    return written
  }

  /** Reads to the end and checks all there is to check. */
  async verify(options: Omit<VmaRestoreOptions, 'rateBytesPerSecond'>): Promise<void> {
    await this.restore(new Map(), options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stream[Symbol.asyncDispose]()
  }

  async *#extents(): AsyncGenerator<{ pieces: Piece[]; count: number }> {
    const devices = new Map(this.header.devices.map((device) => [device.id, device]))
    // How much memory was saved the header does not tell, and nobody restores it.
    const disks = this.header.devices.filter(({ name }) => name !== memoryDevice)
    const coverage = new Map(disks.map((device) => [device.id, new Coverage(device)]))
    const head = Buffer.alloc(extentHeaderBytes)
    for (let number = 1; ; number += 1) {
      const length = await this.#stream.fill(head)
      if (length === 0) break
      if (length < head.length) throw damaged(`it ends within the header of extent ${number}`)
      const header = parseExtentHeader(head, this.header.uuid, number)
      const data = Buffer.allocUnsafe(header.dataBytes)
      if ((await this.#stream.fill(data)) < data.length) throw damaged(`it ends within extent ${number}`)
      const pieces = piecesOf(header, data, devices, number)
      for (const { device, cluster } of header.entries) coverage.get(device)?.add(cluster)
      yield { pieces, count: header.entries.length }
    }
    for (const one of coverage.values()) one.requireWhole()
  }
}
