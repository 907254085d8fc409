import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { MiB } from '#base/bytes.ts'
import { progressWriter } from './progress.ts'
import { redactorFor } from './secrets.ts'

test('who asks how a task is hears its rate and the time it still takes, and its log tells of it now and then', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hako-progress-'))
  try {
    let now = 0
    const lines: string[] = []
    const clock = { ...systemClock, monotonic: () => now }
    const hide = redactorFor({ secret: 'scsi0' }, ['secret'])
    const progress = progressWriter(directory, { clock, hide, log: (line) => void lines.push(line) })
    for (; now <= 25_000; now += 50) progress('read scsi0', now / 100_000, (now / 1000) * 100 * MiB)
    assert.deepEqual(JSON.parse(await readFile(join(directory, 'progress.json'), 'utf8')), {
      phase: 'read ********',
      fraction: 0.25,
      rate: 100 * MiB,
      left: 75,
    })
    assert.deepEqual(lines, [
      'read ********: 10 %, 1000 MiB, 100 MiB/s, 1:30 left',
      'read ********: 20 %, 2.0 GiB, 100 MiB/s, 1:20 left',
    ])
    progress('write', 0.3)
    assert.deepEqual(JSON.parse(await readFile(join(directory, 'progress.json'), 'utf8')), {
      phase: 'write',
      fraction: 0.3,
    })
  } finally {
    await rm(directory, { recursive: true })
  }
})
