/** How far the collector of garbage is, for whoever waits; and whether they still do. */
import type { Mark } from '#base/pace.ts'
import { goOn } from '../go-on.ts'
import { allEntries } from '../index/merge.ts'
import { mostOf } from '../index/ordinals.ts'
import type { Segment, SegmentEntry } from '../index/segment.ts'

const tickEvery = 4_096

export interface Watching {
  readonly signal?: AbortSignal | undefined
  /** In phases: `backups` are looked at, the `index` is gone through, packs are written anew (`rewrite`) and go (`remove`). */
  readonly onProgress?: ((mark: Mark) => void) | undefined
}

export class Watched {
  readonly #watching: Watching

  constructor(watching: Watching) {
    this.#watching = watching
  }

  /** @throws Fault `aborted` */
  goOn(): void {
    goOn(this.#watching.signal)
  }

  tell(phase: string, done: number, all: number, bytes?: number): void {
    this.#watching.onProgress?.({ phase, fraction: Math.min(1, done / Math.max(1, all)), bytes })
  }

  /** To be called for each of `all`. */
  ticker(phase: string, all: number): () => void {
    let done = 0
    return () => {
      done += 1
      if (done % tickEvery === 0) this.tell(phase, done, all)
    }
  }

  /** All entries of the index, some at a time. @throws Fault `aborted` */
  async *entriesOf(segments: readonly Segment[]): AsyncGenerator<SegmentEntry[]> {
    const all = mostOf(segments)
    let seen = 0
    for await (const entries of allEntries(segments)) {
      this.goOn()
      yield entries
      seen += entries.length
      this.tell('index', seen, all)
    }
  }
}
