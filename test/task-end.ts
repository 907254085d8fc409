/** Waits for the end of a task of a node that lives on this machine. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import type { Settings } from '../src/settings.ts'

/**
 * Until its end is written down, or it is forgotten. What the node says of a task it reads there, too: to look costs nothing,
 * and each question to the node costs some milliseconds, which is a tenth of a processor for as long as the task runs.
 */
export async function untilEnded({ stateDir }: Settings, upid: string, timeoutMs: number): Promise<void> {
  const directory = join(stateDir, 'tasks', upid)
  const isOver = () => existsSync(join(directory, 'end.json')) || !existsSync(directory)
  await waitFor(isOver, { what: `end of task ${upid}`, timeoutMs })
}
