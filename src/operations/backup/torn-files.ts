/**
 * Files of a container somebody wrote to while they were read: each is kept as it was at no one moment. Nobody of the container can,
 * as it stands still then; others can who have its files too, on the node or through a storage that is shared.
 */
import { posix } from 'node:path'
import type { GuestContext } from './half.ts'

/** Named in the log, and in what people are told. */
const [namedInLog, namedInHint] = [10, 5]

export class TornFiles {
  readonly #mountedAt: string
  readonly #named: string[] = []
  #count = 0

  /** @param mountedAt where the tree is in the container */
  constructor(mountedAt: string) {
    this.#mountedAt = mountedAt
  }

  readonly add = (path: string): void => {
    this.#count += 1
    if (this.#named.length < namedInLog) this.#named.push(posix.join(this.#mountedAt, path))
  }

  say(tree: string, { log, warn, hint }: Pick<GuestContext, 'log' | 'warn' | 'hint'>): void {
    if (this.#count === 0) return
    const files = this.#count === 1 ? '1 file was' : `${this.#count} files were`
    const how = `${files} written to while being read, and kept in part as before that and in part as after it`
    warn(`${tree}: ${how}`)
    for (const path of this.#named) log(`${tree}: written to: ${path}`)
    const left = this.#count - this.#named.length
    if (left > 0) log(`${tree}: written to: and ${left} more`)
    const some = this.#named.slice(0, namedInHint)
    const more = this.#count - some.length
    hint(`${how}: ${some.join(', ')}${more > 0 ? ` and ${more} more` : ''}`)
  }
}
