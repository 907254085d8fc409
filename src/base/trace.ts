/**
 * Which parts of the node something passed, and how long each had it: measured where it happens, for one request or task
 * that is followed. What nobody follows costs a look at an empty place.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { systemClock } from './clock.ts'

/** `qmp`: the monitor of a guest; `program`: one that was started and waited for; `task`: a task that was begun. */
export type Passed = 'store' | 'qmp' | 'program' | 'task'

interface Span {
  readonly passed: Passed
  /** Guest, program or task. */
  readonly name: string
  readonly fromMs: number
  readonly toMs: number
}

/** One part, each time added up; times at once count once. */
export interface Stop {
  readonly passed: Passed
  readonly name: string
  readonly ms: number
  readonly times: number
}

export interface Followed {
  readonly ms: number
  /** In no other part. */
  readonly ownMs: number
  /** In the order they were first passed. */
  readonly stops: readonly Stop[]
}

const spansMaximum = 10_000
const stopsMaximum = 16
const following = new AsyncLocalStorage<Span[]>()

/** Does it, and says which parts it passed. What it throws it throws. */
export async function followed<T>(act: () => Promise<T>): Promise<{ readonly result: T; readonly way: Followed }> {
  const spans: Span[] = []
  const fromMs = systemClock.monotonic()
  const result = await following.run(spans, act)
  const ms = systemClock.monotonic() - fromMs
  return { result, way: { ms, ownMs: ms - together(spans), stops: stopsOf(spans) } }
}

/** Whether anybody follows what is being done. */
export function isFollowed(): boolean {
  return following.getStore() !== undefined
}

/** Does it; whoever follows learns how long that part had it. */
export async function passing<T>(passed: Passed, name: string, act: () => Promise<T> | T): Promise<T> {
  const spans = following.getStore()
  if (!spans || spans.length >= spansMaximum) return act()
  const fromMs = systemClock.monotonic()
  try {
    return await act()
  } finally {
    spans.push({ passed, name, fromMs, toMs: systemClock.monotonic() })
  }
}

function stopsOf(spans: readonly Span[]): Stop[] {
  const byStart = spans.toSorted((a, b) => a.fromMs - b.fromMs)
  const groups = Map.groupBy(byStart, ({ passed, name }) => `${passed} ${name}`)
  return [...groups.values()].slice(0, stopsMaximum).flatMap((own): Stop[] => {
    const [first] = own
    return first ? [{ passed: first.passed, name: first.name, ms: together(own), times: own.length }] : []
  })
}

/** How long at least one of them lasted. */
function together(spans: readonly Span[]): number {
  let [sum, end] = [0, 0]
  for (const { fromMs, toMs } of spans.toSorted((a, b) => a.fromMs - b.fromMs)) {
    sum += Math.max(0, toMs - Math.max(fromMs, end))
    end = Math.max(end, toMs)
  }
  return sum
}

/** As browsers show it: `daemon;dur=12.3, daemon-own;dur=4.1, qmp;dur=1.2;desc="100 x2"`. */
export function serverTiming({ ms, ownMs, stops }: Followed): string {
  const metric = (name: string, took: number, said = '') =>
    `${name};dur=${took.toFixed(3)}${said === '' ? '' : `;desc="${said.replaceAll(/[^\w ./:@!-]/g, '_').slice(0, 100)}"`}`
  return [
    metric('daemon', ms),
    metric('daemon-own', ownMs),
    ...stops.map((stop) => metric(stop.passed, stop.ms, `${stop.name} x${stop.times}`)),
  ].join(', ')
}
