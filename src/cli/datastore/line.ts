/** One command of `hako datastore`, as a value. */
import type { Parsed } from '../arguments.ts'
import type { LocalOption } from '../local.ts'
import type { Terminal } from '../terminal.ts'

export interface Line {
  readonly words: readonly string[]
  /** Plain arguments after the words; a last one of `…` takes any number. */
  readonly takes: readonly string[]
  readonly en: string
  readonly ja: string
  readonly options?: Readonly<Record<string, LocalOption>>
  readonly examples: readonly string[]
  /** Columns of a table, where what comes back is one. */
  readonly columns?: readonly string[]
  readonly id?: string
  readonly act: (given: readonly string[], parsed: Parsed, terminal: Terminal) => Promise<Outcome | void>
}

export interface Outcome {
  readonly rows: unknown
  /** Those of a table, where they are not always the line's. */
  readonly columns?: readonly string[]
  /** False: a proof was tried and failed. */
  readonly isProven?: boolean
  /** False: something was looked for and found wanting. */
  readonly isWhole?: boolean
}
