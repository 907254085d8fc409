/** `hako datastore migrate`: out of the first format, without a node. */
import { resolve } from 'node:path'
import { FirstDatastore } from '#backup/first-format/datastore.ts'
import { requireAll, takeOver } from '#backup/first-format/take-over.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { withKeys } from './opening.ts'

export interface MigrateResult {
  readonly taken: number
  readonly before: number
}

/** Both are folders; the old one is read only. @throws Fault `damaged` naming what could not be taken over */
export async function migrate(
  from: string,
  directory: string,
  parsed: Parsed,
  terminal: Terminal,
): Promise<MigrateResult> {
  const old = await FirstDatastore.open(resolve(from))
  return withKeys(directory, parsed, terminal, async (open) => {
    const all = await takeOver(old, open, { signal: terminal.signal, log: (line) => terminal.show(line) })
    requireAll(all)
    return { taken: all.taken, before: all.before }
  })
}
