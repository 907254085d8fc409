/**
 * Follows a task: prints its log as it grows and a phase bar, and ends as the task ends.
 *
 * Progress goes to stderr, so that standard output stays what a script asked for. Ctrl-C stops the
 * waiting, not the task, and says so.
 */
import { type Clock, systemClock } from '#base/clock.ts'
import { Fault, type FaultKind } from '#base/fault.ts'
import type { Connection } from './connection.ts'
import { type Language, say } from './text.ts'

export interface WaitFacts {
  readonly connection: Connection
  readonly upid: string
  readonly language: Language
  readonly quiet: boolean
  readonly timeoutSeconds: number | undefined
  /** Receives whole lines, and with `isTransient` a line that the next one replaces. */
  readonly show: (line: string, isTransient?: boolean) => void
  readonly signal?: AbortSignal
  readonly clock?: Clock
}

interface TaskStatus {
  readonly status: 'running' | 'stopped'
  readonly exitstatus?: string
  /** Of the fault it ended with. */
  readonly kind?: FaultKind
  readonly remedy?: string
  readonly phase?: string
  readonly fraction?: number
}

/** @returns the exit status of a task that ended well (`OK` or `WARNINGS: n`). @throws Fault for any other end */
export async function waitForTask(facts: WaitFacts): Promise<string> {
  const { connection, upid, clock = systemClock, timeoutSeconds, signal, language } = facts
  const path = `/nodes/${upid.split(':')[1] ?? ''}/tasks/${encodeURIComponent(upid)}`
  const deadline = timeoutSeconds === undefined ? Infinity : clock.monotonic() + timeoutSeconds * 1000
  let seen = 0
  for (let pause = 20; ; pause = Math.min(pause * 1.5, 250)) {
    const status = (await connection.call('GET', `${path}/status`)).data as TaskStatus
    if (!facts.quiet) seen = await showNews(facts, path, seen, status)
    if (status.status === 'stopped') return ended(status)
    if (signal?.aborted) throw new Fault('aborted', say(language, 'taskRunsOn', upid))
    if (clock.monotonic() > deadline)
      throw new Fault('timeout', `no end after ${timeoutSeconds} s. ${say(language, 'taskRunsOn', upid)}`)
    await clock.sleep(pause)
  }
}

function ended({ exitstatus: exitStatus = 'unexpected status', kind, remedy }: TaskStatus): string {
  if (exitStatus === 'OK' || exitStatus.startsWith('WARNINGS')) return exitStatus
  throw new Fault(kind ?? 'failed', exitStatus, remedy === undefined ? {} : { remedy })
}

async function showNews(facts: WaitFacts, path: string, seen: number, status: TaskStatus): Promise<number> {
  const log = (await facts.connection.call('GET', `${path}/log`, { start: String(seen), limit: '500' })).data
  const lines = (log as { n: number; t: string }[]).filter(
    ({ n, t }) => n > seen && t !== 'no content' && !/^TASK (OK|ERROR|WARNINGS)/.test(t),
  )
  for (const { t } of lines) facts.show(t)
  if (status.status === 'running' && status.phase !== undefined)
    facts.show(phaseBar(status.phase, status.fraction), true)
  return lines.at(-1)?.n ?? seen
}

/** `write    ██████──────  52 %` */
export function phaseBar(phase: string, fraction: number | undefined): string {
  if (fraction === undefined) return `${phase} …`
  const share = Math.min(1, Math.max(0, fraction))
  const filled = Math.round(share * 20)
  return `${phase.padEnd(12)} ${'█'.repeat(filled)}${'─'.repeat(20 - filled)} ${String(Math.round(share * 100)).padStart(3)} %`
}
