import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GiB } from '#base/bytes.ts'
import type { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { memoryCounters } from '#host/programs/proc.ts'
import { requireMemory } from './room.ts'

test('a guest that needs more memory than the node has is told how much is missing', async () => {
  const counters = await memoryCounters()
  requireMemory(asVmid(100), { memory: '16' }, counters)
  assert.throws(
    () => requireMemory(asVmid(100), { memory: '2048' }, { ...counters, availableBytes: GiB, swapFreeBytes: 0 }),
    (error: Fault) =>
      error.kind === 'exhausted' &&
      error.message === 'not enough memory to start VM 100: it needs 2.0 GiB, the node has 1.0 GiB available' &&
      error.remedy !== undefined,
  )
})
