/** What is written is named by the same digest however many writes are under way, and waiting is counted once. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import { memoryTarget } from '../../../test/fixtures/datastore.ts'
import { watchedTarget } from './watched-target.ts'

test('writes that overlap give the digest of the disk, and are not waited for twice', async () => {
  const sizeBytes = 900 * KiB + 100
  const parts = [0, 128 * KiB, 500 * KiB].map((offset) => ({ offset, bytes: randomBytes(100 * KiB) }))
  const watched = () => {
    const target = memoryTarget(sizeBytes)
    const slow = async (offset: number, bytes: Uint8Array) => {
      await systemClock.sleep(20)
      await target.write(offset, bytes)
    }
    return watchedTarget({ ...target, write: slow }, { sizeBytes, isNamed: true })
  }
  const [atOnce, inTurn] = [watched(), watched()]
  const started = performance.now()
  await Promise.all(parts.map(({ offset, bytes }) => atOnce.write(offset, bytes)))
  assert.ok(atOnce.writeMs <= performance.now() - started)
  for (const { offset, bytes } of parts) await inTurn.write(offset, bytes)
  assert.equal(atOnce.digest(), inTurn.digest())
})
