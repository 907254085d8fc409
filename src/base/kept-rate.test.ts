import assert from 'node:assert/strict'
import { test } from 'node:test'
import { keptRate } from './kept-rate.ts'

/** A clock nobody waits for. */
function ownTime() {
  let nowMs = 5_000
  const sleep = async (ms: number) => void (nowMs += ms)
  return { clock: { now: () => nowMs, monotonic: () => nowMs, sleep }, pass: (ms: number) => void (nowMs += ms) }
}

test('bytes take as long as they may, whatever else takes time; a stall is not made up for', async () => {
  const { clock, pass } = ownTime()
  const keepRate = keptRate(1_000, { clock })
  for (let bytes = 500; bytes <= 10_000; bytes += 500) {
    pass((bytes / 500) % 2 === 0 ? 300 : 600)
    await keepRate(bytes)
  }
  // Slower at times, faster at others: in the end as fast as it may be.
  assert.equal(clock.now(), 5_000 + 10_000)
  pass(60_000)
  for (let bytes = 10_500; bytes <= 20_000; bytes += 500) await keepRate(bytes)
  const took = clock.now() - 75_000
  assert.ok(took >= 8_500 && took <= 10_000, `${took} ms for 10,000 bytes after a stall`)
  await keptRate(0, { clock })(1e12)
  await keptRate(undefined, { clock })(1e12)
  assert.equal(clock.now(), 75_000 + took)
})
