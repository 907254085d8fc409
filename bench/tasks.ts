/** Calls that start a task, and its end. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BenchNode } from './bench-node.ts'

/** Resolves when the task the call has started is over. @throws Error when it did not end well */
export async function inTask(node: BenchNode, call: () => ReturnType<BenchNode['api']>, everyMs = 1): Promise<void> {
  const { data: upid } = await call()
  while (!(await isOver(node, String(upid)))) await sleep(everyMs)
}

/** As `inTask`, of a task nobody watches: the node is asked once its end has been written down. */
export async function inUnwatchedTask(node: BenchNode, call: () => ReturnType<BenchNode['api']>): Promise<void> {
  const { data: upid } = await call()
  const end = join(node.settings.stateDir, 'tasks', String(upid), 'end.json')
  while (!existsSync(end)) await sleep(1)
  while (!(await isOver(node, String(upid)))) await sleep(1)
}

async function isOver({ api, settings }: BenchNode, upid: string): Promise<boolean> {
  const path = `/nodes/${settings.node}/tasks/${encodeURIComponent(upid)}/status`
  const { status, exitstatus } = (await api('GET', path)).data as { status: string; exitstatus?: string }
  if (status !== 'stopped') return false
  if (exitstatus !== 'OK') throw new Error(`the task ended with '${exitstatus}'`)
  return true
}
