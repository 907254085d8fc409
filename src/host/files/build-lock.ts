/**
 * A lock file naming its holder by pid and start time, so that one left by a killed process is recognised.
 */
import { link, rm, writeFile } from 'node:fs/promises'
import { waitFor } from '#base/clock.ts'
import { codeOf, readIfPresent } from '../files.ts'
import { startTimeOf } from '../programs/proc.ts'

const waitMs = 300_000
/** Of this process: several parts of it may wait at once. */
let drafts = 0

/** Waits until nobody else holds the lock, takes it, and gives it back on disposal. */
export async function holdLock(
  path: string,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<AsyncDisposable> {
  const mine = await holderOf(process.pid)
  drafts += 1
  const draft = `${path}.${process.pid}.${drafts}`
  await writeFile(draft, mine ?? '')
  try {
    await waitFor(() => take(draft, path), { what: `the lock '${path}'`, timeoutMs: waitMs, everyMs: 100, signal })
  } finally {
    await rm(draft, { force: true })
  }
  return { [Symbol.asyncDispose]: () => rm(path, { force: true }) }
}

async function take(draft: string, path: string): Promise<boolean> {
  try {
    // A link appears with its content: nobody ever reads a lock that does not name its holder yet.
    await link(draft, path)
    return true
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
  const holder = (await readIfPresent(path))?.trim()
  if (holder !== undefined && holder !== (await holderOf(Number(holder.split(' ')[0])))) await rm(path, { force: true })
  return false
}

/** `pid starttime`, or nothing when no such process runs. */
async function holderOf(pid: number): Promise<string | undefined> {
  const startTime = await startTimeOf(pid)
  return startTime === undefined ? undefined : `${pid} ${startTime}`
}
