import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { keepOptions, kept, readRetention, type Retention } from './retention.ts'

const at = (text: string) => Date.parse(text) / 1000

/** What of these moments is kept, as it was written. */
function keptOf(keep: string, moments: readonly string[], zone = 'UTC'): string[] {
  const items = moments.map((text) => ({ text, ctime: at(text) }))
  return [...kept(items, readRetention(keep), zone)].map(({ text }) => text).toSorted()
}

test('the last ones are kept, in whatever order they are given', () => {
  const moments = ['2026-11-19T02:00:00Z', '2026-11-20T02:00:00Z', '2026-11-18T02:00:00Z']
  assert.deepEqual(keptOf('keep-last=2', moments), ['2026-11-19T02:00:00Z', '2026-11-20T02:00:00Z'])
  assert.deepEqual(keptOf('keep-last=9', moments), moments.toSorted())
})

test('of a period its last one is kept, and a period without any does not count', () => {
  const moments = ['2026-11-01T10:00:00Z', '2026-11-20T08:00:00Z', '2026-11-20T10:10:00Z', '2026-11-20T10:50:00Z']
  assert.deepEqual(keptOf('keep-hourly=1', moments), ['2026-11-20T10:50:00Z'])
  assert.deepEqual(keptOf('keep-hourly=2', moments), ['2026-11-20T08:00:00Z', '2026-11-20T10:50:00Z'])
  assert.deepEqual(keptOf('keep-daily=2', moments), ['2026-11-01T10:00:00Z', '2026-11-20T10:50:00Z'])
  assert.deepEqual(keptOf('keep-daily=0,keep-yearly=1', moments), ['2026-11-20T10:50:00Z'])
})

test('an option begins where the ones before it ended', () => {
  const days = Array.from({ length: 40 }, (_, day) => new Date(Date.UTC(2026, 10, 20 - day, 2)).toISOString())
  assert.deepEqual(keptOf('keep-last=1,keep-daily=2,keep-weekly=2,keep-monthly=1', days), [
    '2026-10-31T02:00:00.000Z', // the month before this one
    '2026-11-08T02:00:00.000Z', // two Sundays
    '2026-11-15T02:00:00.000Z',
    '2026-11-18T02:00:00.000Z', // two more days
    '2026-11-19T02:00:00.000Z',
    '2026-11-20T02:00:00.000Z',
  ])
})

test('days are those of the node', () => {
  const moments = ['2026-11-19T22:30:00Z', '2026-11-19T23:30:00Z']
  assert.deepEqual(keptOf('keep-daily=2', moments), ['2026-11-19T23:30:00Z'])
  assert.deepEqual(keptOf('keep-daily=2', moments, 'Europe/Vienna'), moments)
  // The first days of a year may belong to the last week of the year before.
  const turn = ['2026-12-31T10:00:00Z', '2027-01-01T10:00:00Z']
  assert.deepEqual(keptOf('keep-weekly=2', turn), ['2027-01-01T10:00:00Z'])
})

test('nothing said, and nothing kept of anything, keep everything', () => {
  const moments = ['2026-11-19T22:30:00Z', '2026-11-19T23:30:00Z']
  for (const keep of ['', 'keep-all=1', 'keep-last=0', 'keep-daily=0,keep-weekly=0']) {
    assert.deepEqual(keptOf(keep, moments), moments, keep)
  }
  for (const wrong of ['keep-all=1,keep-last=2', 'keep-last=-1', 'keep-some=1', 'keep-last=many']) {
    assert.throws(() => readRetention(wrong), { message: 'Parameter verification failed.' }, wrong)
  }
})

/** The rule again, by periods instead of by backups, in universal time. */
function model(times: readonly number[], retention: Retention): Set<number> {
  const day = 86_400
  const dateOf = (time: number) => new Date(time * 1000)
  const periodOf = {
    'keep-last': (time: number) => time,
    'keep-hourly': (time: number) => Math.floor(time / 3600),
    'keep-daily': (time: number) => Math.floor(time / day),
    // 1970 began on a Thursday.
    'keep-weekly': (time: number) => Math.floor((time / day + 3) / 7),
    'keep-monthly': (time: number) => dateOf(time).getUTCFullYear() * 12 + dateOf(time).getUTCMonth(),
    'keep-yearly': (time: number) => dateOf(time).getUTCFullYear(),
  }
  let undecided = times.toSorted((a, b) => b - a)
  const all = new Set<number>()
  if (keepOptions.every((name) => !retention[name])) return new Set(times)
  for (const name of keepOptions) {
    const held = new Set([...all].map(periodOf[name]))
    const groups = Map.groupBy(
      undecided.filter((time) => !held.has(periodOf[name](time))),
      periodOf[name],
    )
    const chosen = [...groups.values()].slice(0, retention[name] ?? 0)
    for (const [first = NaN] of chosen) all.add(first)
    const gone = new Set(chosen.flat())
    undecided = undecided.filter((time) => !gone.has(time))
  }
  return all
}

test('what is kept is what a simple model keeps', () => {
  // Crowded enough that periods hold several, over more than two years.
  const time = fc.integer({ min: 0, max: 6000 }).map((step) => at('2024-06-15T00:00:00Z') + step * 12_345)
  const count = fc.oneof({ weight: 2, arbitrary: fc.constant(undefined) }, fc.integer({ min: 0, max: 8 }))
  const retention = fc.record(Object.fromEntries(keepOptions.map((name) => [name, count])))
  fc.assert(
    fc.property(fc.uniqueArray(time, { maxLength: 60 }), retention, (times, wish) => {
      const keep = JSON.parse(JSON.stringify(wish)) as Retention
      const items = times.map((ctime) => ({ ctime }))
      const ours = [...kept(items, keep, 'UTC')].map(({ ctime }) => ctime).toSorted((a, b) => a - b)
      assert.deepEqual(
        ours,
        [...model(times, keep)].toSorted((a, b) => a - b),
      )
      if (times.length > 0) assert.ok(ours.includes(Math.max(...times)), 'the latest goes')
    }),
    { numRuns: 500 },
  )
})
