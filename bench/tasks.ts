/** Calls that start a task, and its end. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { BenchNode } from './bench-node.ts'

/** Resolves when the task the call has started is over. @throws Error when it did not end well */
export async function inTask(
  { api, settings }: BenchNode,
  call: () => ReturnType<BenchNode['api']>,
  everyMs = 1,
): Promise<void> {
  const { data: upid } = await call()
  for (;;) {
    const path = `/nodes/${settings.node}/tasks/${encodeURIComponent(String(upid))}/status`
    const { status, exitstatus } = (await api('GET', path)).data as { status: string; exitstatus?: string }
    if (status === 'stopped') {
      if (exitstatus !== 'OK') throw new Error(`the task ended with '${exitstatus}'`)
      return
    }
    await sleep(everyMs)
  }
}
