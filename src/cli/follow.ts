/** Follows what an endpoint only started (a program in a guest) to its end: its output is ours, its exit code too. */
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Follow } from '#rest/endpoint.ts'
import type { Connection, Params } from './connection.ts'
import { filledPath } from './path.ts'
import type { Terminal } from './terminal.ts'
import { say } from './text.ts'

type Facts = Readonly<Record<string, unknown>>

export interface FollowFacts {
  readonly follow: Follow
  /** Reply of the call that started it. */
  readonly started: unknown
  readonly params: Params
  readonly connection: Connection
  readonly terminal: Terminal
  readonly timeoutSeconds: number | undefined
}

/** @returns the exit code of what was followed; 128 and more when a signal ended it. @throws Fault `timeout`, `aborted` */
export async function followToEnd({
  follow,
  started,
  params,
  connection,
  terminal,
  timeoutSeconds,
}: FollowFacts): Promise<number> {
  const { path: place, by = '', ended = '' } = follow
  if (place === undefined) return finish(follow, factsOf(started), terminal)
  const key = textOf(factsOf(started)[by])
  const path = filledPath(place, params)
  const deadline = timeoutSeconds === undefined ? Infinity : systemClock.monotonic() + timeoutSeconds * 1000
  for (let pauseMs = 20; ; pauseMs = Math.min(pauseMs * 1.5, 500)) {
    const facts = factsOf((await connection.call('GET', path, { [by]: key }, { signal: terminal.signal })).data)
    if (isSet(facts[ended])) return finish(follow, facts, terminal)
    if (systemClock.monotonic() > deadline)
      throw new Fault('timeout', `no end after ${timeoutSeconds} s; it goes on in the guest as process ${key}`)
    await systemClock.sleep(pauseMs, terminal.signal)
  }
}

function finish(follow: Follow, facts: Facts, terminal: Terminal): number {
  terminal.write(textOf(facts[follow.out]), textOf(facts[follow.err]))
  if (follow.cut.some((member) => isSet(facts[member]))) terminal.show(say(terminal.language, 'outputCut'))
  const killedBy = Number(facts[follow.killedBy ?? ''] ?? 0)
  return killedBy > 0 ? 128 + killedBy : Number(facts[follow.code] ?? 1)
}

function isSet(value: unknown): boolean {
  return value === 1 || value === true
}

function factsOf(value: unknown): Facts {
  if (typeof value === 'object' && value !== null) return { ...value }
  throw new Fault('failed', 'the node answered nothing to follow')
}

function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : ''
}
