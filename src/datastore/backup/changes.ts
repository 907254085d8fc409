/**
 * What a backup does with each part of a disk whose changes somebody has recorded: changed parts are read, or are zero;
 * the rest is as it was, and of that a small random share is read all the same, for the record may lie. What is zero there
 * need not be read to be known, so all of it is held against the earlier backup.
 *
 * A chunk counts as changed when any part of it is, and then it is read whole.
 */
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import type { Extent } from './block-source.ts'
import { readBytes } from '../format.ts'
import type { Region } from './regions.ts'

/** Chunks said to be unchanged that are looked at all the same. */
export const auditedShare = 0.01

export interface ChangeRegion extends Region {
  /** Reads as zeros, and need not be read; such a region may be of any length. */
  readonly isZero: boolean
  /** Said to be as it was: one chunk, or a run of zeros. */
  readonly isAudit: boolean
}

interface Run {
  /** Bytes; whole chunks. */
  readonly from: number
  readonly to: number
  isZero: boolean
  isUnchanged: boolean
}

/** In order of the disk. @throws Fault `failed` when the extents overlap, go back or leave the disk */
export async function* changeRegions(
  extents: AsyncIterable<Extent>,
  disk: { readonly sizeBytes: number; readonly chunkBytes: number },
  sample: Sample,
): AsyncGenerator<ChangeRegion> {
  // Reads next to each other become one.
  let open: { offset: number; length: number } | undefined
  for await (const run of chunkRuns(extents, disk.sizeBytes, disk.chunkBytes)) {
    const isRead = !run.isUnchanged && !run.isZero
    if (open && !(isRead && open.offset + open.length === run.from)) {
      yield* cut(open.offset, open.length)
      open = undefined
    }
    if (isRead) {
      open ??= { offset: run.from, length: 0 }
      open.length = run.to - open.offset
      const whole = open.length - (open.length % readBytes)
      yield* cut(open.offset, whole)
      open = { offset: open.offset + whole, length: open.length - whole }
    } else if (run.isUnchanged && run.isZero) {
      if (sample.isAny) yield { offset: run.from, length: run.to - run.from, isZero: true, isAudit: true }
    } else if (run.isUnchanged) {
      for (const number of sample.of(Math.ceil((run.to - run.from) / disk.chunkBytes))) {
        const offset = run.from + number * disk.chunkBytes
        yield { offset, length: Math.min(disk.chunkBytes, run.to - offset), isZero: false, isAudit: true }
      }
    } else yield { offset: run.from, length: run.to - run.from, isZero: true, isAudit: false }
  }
  if (open) yield* cut(open.offset, open.length)
}

function* cut(from: number, length: number): Generator<ChangeRegion> {
  for (let at = 0; at < length; at += readBytes) {
    yield { offset: from + at, length: Math.min(readBytes, length - at), isZero: false, isAudit: false }
  }
}

/** Extents in whole chunks. */
async function* chunkRuns(extents: AsyncIterable<Extent>, sizeBytes: number, chunkBytes: number): AsyncGenerator<Run> {
  let at = 0
  /** The chunk an extent ended in. */
  let begun: Run | undefined
  for await (const { offset, length, isZero, isUnchanged = false } of extents) {
    if (offset !== at || length <= 0 || offset + length > sizeBytes) {
      throw new Fault('failed', `the source describes ${length} bytes at ${offset} after ${at} of ${sizeBytes} bytes`)
    }
    const end = offset + length
    if (begun) {
      begun.isZero &&= isZero
      begun.isUnchanged &&= isUnchanged
      at = Math.min(end, begun.to)
      if (at < begun.to) continue
      yield begun
      begun = undefined
    }
    const whole = end === sizeBytes ? end : end - (end % chunkBytes)
    if (whole > at) yield { from: at, to: whole, isZero, isUnchanged }
    const rest = Math.max(at, whole)
    if (rest < end) begun = { from: rest, to: Math.min(sizeBytes, rest + chunkBytes), isZero, isUnchanged }
    at = end
  }
  if (at !== sizeBytes) throw new Fault('failed', `the source describes ${at} of ${sizeBytes} bytes`)
}

/** To ask for a few costs as much as to ask for many. */
const diceBytes = 1024

/** Chooses among what it is shown, each with the same chance, without throwing dice for each. */
export class Sample {
  readonly #random: Random
  readonly #share: number
  /** Thrown already. */
  #dice: Buffer = Buffer.alloc(0)
  /** To be passed over before the next one is chosen. */
  #left: number

  constructor(random: Random, share: number = auditedShare) {
    this.#random = random
    this.#share = share
    this.#left = this.#distance()
  }

  /** Whether anything is ever chosen. */
  get isAny(): boolean {
    return this.#share > 0
  }

  /** Those chosen among the next `count`, by number from 0. */
  *of(count: number): Generator<number> {
    let at = 0
    while (this.#left < count - at) {
      at += this.#left
      yield at
      at += 1
      this.#left = this.#distance()
    }
    this.#left -= count - at
  }

  /** How many are passed over before one is chosen with a chance of `share` each. */
  #distance(): number {
    if (this.#dice.length === 0) this.#dice = Buffer.from(this.#random.bytes(diceBytes))
    const dice = (this.#dice.readUInt32LE(0) + 1) / 2 ** 32
    this.#dice = this.#dice.subarray(4)
    return this.#share >= 1 ? 0 : Math.floor(Math.log(dice) / Math.log1p(-this.#share))
  }
}
