/** Follows what an endpoint only started (a program in a guest) to its end: its output is ours, its exit code too. */
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Follow } from '#rest/endpoint.ts'
import type { Connection, Params } from './connection.ts'
import { filledPath } from './path.ts'
import type { Terminal } from './terminal.ts'

type Facts = Readonly<Record<string, unknown>>

/** @returns the exit code of what was followed */
export async function followToEnd(
  follow: Follow,
  started: unknown,
  params: Params,
  connection: Connection,
  terminal: Terminal,
): Promise<number> {
  const key = textOf(factsOf(started)[follow.by])
  const path = filledPath(follow.path, params)
  for (let pauseMs = 20; ; pauseMs = Math.min(pauseMs * 1.5, 500)) {
    const facts = factsOf((await connection.call('GET', path, { [follow.by]: key }, { signal: terminal.signal })).data)
    if (facts[follow.ended] === 1 || facts[follow.ended] === true) {
      terminal.write(textOf(facts[follow.out]), textOf(facts[follow.err]))
      return Number(facts[follow.code] ?? 1)
    }
    await systemClock.sleep(pauseMs, terminal.signal)
  }
}

function factsOf(value: unknown): Facts {
  if (typeof value === 'object' && value !== null) return { ...value }
  throw new Fault('failed', 'the node answered nothing to follow')
}

function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : ''
}
