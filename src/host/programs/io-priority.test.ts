import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { ioPriority } from './io-priority.ts'

/** Of every thread of this process, as `ionice` says it. */
const ranks = () => {
  const threads = readdirSync('/proc/self/task')
  const { stdout } = spawnSync('ionice', ['--ignore', '--pid', ...threads], { encoding: 'utf8' })
  return [...new Set(stdout.trim().split('\n'))]
}

test('all of a process waits its turn for the disks for as long as it is told to, and no longer', () => {
  const before = ranks()
  {
    using _ = ioPriority(6)
    assert.deepEqual(ranks(), ['best-effort: prio 6'])
    {
      using __ = ioPriority(8)
      assert.deepEqual(ranks(), ['idle'])
    }
    assert.deepEqual(ranks(), ['best-effort: prio 6'])
  }
  assert.deepEqual(ranks(), before)
})
