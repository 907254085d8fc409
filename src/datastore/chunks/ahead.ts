/**
 * Sees who reads one chunk behind another, and announces what comes next: the longer it goes on, the further ahead. Who jumps
 * about is left alone, and so is who has only begun: a guest that starts from its backup reads a little of much.
 */
import type { ReadPlan } from '../places/place.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { announce, located } from './planned.ts'

/** Readers beside each other. */
const followed = 4
/** A reader may leave some out: they are at hand, or zeros. */
const skipped = 4
const beginsAfter = 4
const aheadMost = 64
/** Of half as much each. */
const lotsKept = 3

interface Stream {
  next: number
  length: number
  announced: number
  /** Of the lots announced last, the latest first: of those before nothing is left but what was passed over. */
  plans: readonly ReadPlan[]
}

export class Ahead {
  readonly #chunks: ChunkReader
  /** The latest first. */
  #streams: readonly Stream[] = []

  private constructor(chunks: ChunkReader) {
    this.#chunks = chunks
  }

  /** Nothing where nothing is announced. */
  static of(chunks: ChunkReader): Ahead | undefined {
    return chunks.place.plan && new Ahead(chunks)
  }

  /**
   * Before a chunk is read.
   * @param position among those that may be read one behind another
   * @param end before which it is known what may be read
   * @param idAt of a chunk behind it; nothing where nothing is to be read
   */
  async readNow(
    position: number,
    end: number,
    idAt: (position: number) => Buffer | undefined | Promise<Buffer | undefined>,
  ): Promise<void> {
    const stream = this.#streamAt(position)
    stream.next = position + 1
    stream.length += 1
    if (stream.length < beginsAfter) return
    const ahead = Math.min(aheadMost, stream.length)
    const [from, to] = [Math.max(stream.announced, position + 1), Math.min(end, position + 1 + ahead)]
    // In larger lots: each is a request.
    if (from >= to || (to < end && to - from < ahead / 2)) return
    stream.announced = to
    const plan = this.#chunks.place.plan?.()
    for (let next = from; plan && next < to; next += 1) {
      const id = await idAt(next)
      const location = id && (await located(this.#chunks, id))
      if (location) announce(plan, location)
    }
    if (!plan) return
    for (const old of stream.plans.slice(lotsKept)) old[Symbol.dispose]()
    stream.plans = [plan, ...stream.plans.slice(0, lotsKept)]
  }

  #streamAt(position: number): Stream {
    const known = this.#streams.find(({ next }) => position >= next && position < next + skipped)
    const stream = known ?? { next: 0, length: 0, announced: 0, plans: [] }
    const [last, others] = [this.#streams.at(-1), this.#streams.filter((one) => one !== stream)]
    this.#streams = [stream, ...others.slice(0, followed - 1)]
    if (last && !this.#streams.includes(last)) for (const plan of last.plans) plan[Symbol.dispose]()
    return stream
  }
}
