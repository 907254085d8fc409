import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MiB } from './bytes.ts'
import { clockFace, linesOf, paceOf, progressLine } from './pace.ts'

test('the time that is left follows from the pace of the phase, and starts anew with the next one', () => {
  const pace = paceOf()
  assert.deepEqual(pace({ phase: 'write', fraction: 0.1 }, 0), {})
  assert.deepEqual(pace({ phase: 'write', fraction: 0.2 }, 1000), {}, 'too early to tell')
  assert.deepEqual(pace({ phase: 'write', fraction: 0.5 }, 4000), { left: 5 })
  assert.deepEqual(pace({ phase: 'check', fraction: 0.6 }, 5000), {})
  assert.deepEqual(pace({ phase: 'check' }, 9000), {})
  assert.deepEqual([clockFace(41.2), clockFace(3909)], ['0:42', '1:05:09'])
})

test('the rate is that of the last half minute, also of work that tells of itself rarely', () => {
  const pace = paceOf()
  const at = (seconds: number, bytes: number) => pace({ phase: 'read', bytes }, seconds * 1000).rate
  assert.equal(at(0, 0), undefined)
  assert.equal(at(1, 100 * MiB), undefined, 'too early to tell')
  for (let second = 2; second <= 60; second += 1) assert.equal(at(second, second * 100 * MiB), 100 * MiB)
  // From here on it goes at a tenth of that.
  let rate
  for (let second = 61; second <= 95; second += 1) rate = at(second, (6_000 + (second - 60) * 10) * MiB)
  assert.equal(rate, 10 * MiB)
  assert.equal(at(495, (6_350 + 400) * MiB), MiB, 'minutes later')
})

test('a line comes no more often than every ten seconds, and of slow work every few minutes', () => {
  const isDue = linesOf()
  const lines: number[] = []
  for (let second = 0; second <= 100; second += 1) {
    if (isDue({ phase: 'read', fraction: second / 100 }, second * 1000)) lines.push(second)
  }
  assert.deepEqual(lines, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100])
  const slow = linesOf()
  const fewer: number[] = []
  for (let second = 0; second <= 1000; second += 1) {
    if (slow({ phase: 'read', fraction: second / 1e6 }, second * 1000)) fewer.push(second)
  }
  assert.deepEqual(fewer, [300, 600, 900])
  assert.equal(slow({ phase: 'another' }, 5_000_000), false)
})

test('a line says what is known', () => {
  const mark = { phase: 'read scsi0', fraction: 0.126, bytes: 4096 * MiB }
  assert.equal(progressLine(mark, { rate: 210 * MiB, left: 42 }), 'read scsi0: 12 %, 4.0 GiB, 210 MiB/s, 0:42 left')
  assert.equal(progressLine({ phase: 'clone' }, {}), 'clone …')
})
