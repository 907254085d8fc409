import assert from 'node:assert/strict'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { History } from './history.ts'
import { RingFile } from './ring-file.ts'

async function place() {
  const directory = await mkdtemp(join(tmpdir(), 'hako-ring-'))
  return {
    directory,
    path: join(directory, 'sub', 'ring'),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  }
}

const start = Date.parse('2026-11-20T10:00:00Z') / 1000

test('a minute is remembered as it was, an hour of them as mean and maximum', async () => {
  await using at = await place()
  const ring = new RingFile(at.path, ['a', 'b'])
  for (const [minute, a] of [10, 20, 60].entries()) await ring.record(start + minute * 60, { a, b: undefined })
  const now = start + 125
  assert.deepEqual((await ring.rows('hour', 'AVERAGE', now)).slice(-4), [
    { time: start - 60 },
    { time: start, a: 10 },
    { time: start + 60, a: 20 },
    { time: start + 120, a: 60 },
  ])
  assert.deepEqual((await ring.rows('day', 'AVERAGE', now)).at(-1), { time: start, a: 30 })
  assert.deepEqual((await ring.rows('day', 'MAX', now)).at(-1), { time: start, a: 60 })
  for (const timeframe of ['week', 'month', 'year', 'decade'] as const) {
    const rows = await ring.rows(timeframe, 'MAX', now)
    assert.equal(rows.at(-1)?.a, 60, timeframe)
    assert.equal(rows.filter(({ a }) => a !== undefined).length, 1)
  }
})

test('what is too old, or was never measured, is a row of its time without values', async () => {
  await using at = await place()
  const ring = new RingFile(at.path, ['a'])
  assert.equal((await ring.rows('hour', 'AVERAGE', start)).length, 60)
  await ring.record(start, { a: 1 })
  // As many minutes later as the ring has slots: the same slot, another time.
  const rows = await ring.rows('hour', 'AVERAGE', start + 70 * 60)
  assert.ok(rows.every(({ a }) => a === undefined))
  await ring.record(start + 70 * 60, { a: 2 })
  assert.deepEqual((await ring.rows('hour', 'AVERAGE', start + 70 * 60)).at(-1), { time: start + 4200, a: 2 })
})

test('the file never grows beyond its size, and another file is begun where it does not fit', async () => {
  await using at = await place()
  const ring = new RingFile(at.path, ['a'])
  for (let day = 0; day < 5_000; day += 50) await ring.record(start + day * 86_400, { a: day })
  const { size } = await stat(at.path)
  assert.ok(size <= 4096 + 850 * 4 * 8, `${size}`)
  assert.equal((await ring.rows('decade', 'MAX', start + 4_950 * 86_400)).at(-1)?.a, 4_950)
  const other = new RingFile(at.path, ['a', 'b'])
  assert.ok((await other.rows('year', 'MAX', start)).every(({ a }) => a === undefined))
  await writeFile(at.path, 'short')
  await ring.record(start, { a: 7 })
  assert.equal((await ring.rows('hour', 'MAX', start)).at(-1)?.a, 7)
})

test('whatever is measured when, each row is the mean and the maximum of its time', async () => {
  const samples = fc.array(
    fc.record({ minute: fc.integer({ min: 0, max: 59 }), value: fc.double({ min: -1e12, max: 1e12, noNaN: true }) }),
    { maxLength: 40 },
  )
  await fc.assert(
    fc.asyncProperty(samples, async (all) => {
      await using at = await place()
      const ring = new RingFile(at.path, ['a'])
      for (const { minute, value } of all) await ring.record(start + minute * 60, { a: value })
      const now = start + 59 * 60
      const [means, maxima] = [await ring.rows('hour', 'AVERAGE', now), await ring.rows('hour', 'MAX', now)]
      for (let minute = 0; minute < 60; minute += 1) {
        const values = all.filter((one) => one.minute === minute).map(({ value }) => value)
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length
        if (values.length === 0) assert.equal(means[minute]?.a, undefined)
        else assert.ok(Math.abs((means[minute]?.a ?? NaN) - mean) <= 1e-3)
        assert.equal(maxima[minute]?.a, values.length === 0 ? undefined : Math.max(...values))
      }
    }),
    { numRuns: 30 },
  )
})

test('the history of what is gone goes', async () => {
  await using at = await place()
  const history = new History(at.directory)
  for (const vmid of ['100', '101']) await history.record('guest', vmid, start, { cpu: 0.5 })
  await history.keepOnly('guest', new Set(['101']))
  const query = { timeframe: 'hour', how: 'MAX', nowSeconds: start } as const
  assert.equal((await history.rows('guest', '100', query)).at(-1)?.cpu, undefined)
  assert.equal((await history.rows('guest', '101', query)).at(-1)?.cpu, 0.5)
})
