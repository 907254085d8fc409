/**
 * Follows a task: prints its log as it grows and a phase bar, and ends as the task ends.
 *
 * Progress goes to stderr, so that standard output stays what a script asked for. Ctrl-C stops the
 * waiting, not the task, and says so.
 */
import { humanSize } from '#base/bytes.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { Fault, type FaultKind } from '#base/fault.ts'
import { clockFace } from '#base/pace.ts'
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

const lastLine = /^TASK (OK|ERROR|WARNINGS)/
/** Lines of a log in one reply. */
const pageLines = 500

interface TaskStatus {
  readonly status: 'running' | 'stopped'
  readonly exitstatus?: string
  /** Of the fault it ended with. */
  readonly kind?: FaultKind
  readonly remedy?: string
  readonly phase?: string
  readonly fraction?: number
  readonly rate?: number
  readonly left?: number
}

/** @returns the exit status of a task that ended well (`OK` or `WARNINGS: n`). @throws Fault for any other end */
export async function waitForTask(facts: WaitFacts): Promise<string> {
  const { connection, upid, clock = systemClock, timeoutSeconds, signal, language } = facts
  const path = `/nodes/${upid.split(':')[1] ?? ''}/tasks/${encodeURIComponent(upid)}`
  const deadline = timeoutSeconds === undefined ? Infinity : clock.monotonic() + timeoutSeconds * 1000
  let seen = 0
  for (let pause = 20; ; pause = Math.min(pause * 1.5, 250)) {
    const status = (await connection.call('GET', `${path}/status`)).data as TaskStatus
    if (!facts.quiet) {
      seen = await showNews(facts, path, seen, status)
      showProgress(facts, status)
    }
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

/** All lines there are by now; a long log comes in several replies. */
async function showNews(
  { connection, show }: Pick<WaitFacts, 'connection' | 'show'>,
  path: string,
  seen: number,
  status: TaskStatus,
): Promise<number> {
  const { data } = await connection.call('GET', `${path}/log`, { start: String(seen), limit: String(pageLines) })
  const lines = (data as { n: number; t: string }[]).filter(({ n, t }) => n > seen && t !== 'no content')
  // It has ended since it was asked how it is, and what these lines tell of the end is known with the next answer.
  if (status.status === 'running' && lines.some(({ t }) => lastLine.test(t))) return seen
  for (const { t } of lines) if (!isOfTheEnd(t, status)) show(t)
  const last = lines.at(-1)?.n ?? seen
  return lines.length < pageLines ? last : showNews({ connection, show }, path, last, status)
}

/** How a task ended, and what to do then, is the last word anyway. */
function isOfTheEnd(line: string, { exitstatus = '', remedy }: TaskStatus): boolean {
  return lastLine.test(line) || line === remedy || (line !== '' && exitstatus.endsWith(` ${line}`))
}

function showProgress({ show, language }: WaitFacts, { status, phase, fraction, rate, left }: TaskStatus): void {
  if (status !== 'running' || phase === undefined) return
  const speed = [
    rate === undefined ? '' : `${humanSize(rate)}/s`,
    left === undefined ? '' : say(language, 'left', clockFace(left)),
  ]
  show([phaseBar(phase, fraction), ...speed].filter(Boolean).join('  '), true)
}

/** `write    ██████──────  52 %` */
export function phaseBar(phase: string, fraction: number | undefined): string {
  if (fraction === undefined) return `${phase} …`
  const share = Math.min(1, Math.max(0, fraction))
  const filled = Math.round(share * 20)
  return `${phase.padEnd(12)} ${'█'.repeat(filled)}${'─'.repeat(20 - filled)} ${String(Math.round(share * 100)).padStart(3)} %`
}
