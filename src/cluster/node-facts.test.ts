import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { GiB } from '#base/bytes.ts'
import { NodeFacts, parseMemoryUse, parseProcessor, usageBetween } from './node-facts.ts'

const twoSockets = [0, 1, 2, 3]
  .map((thread) =>
    [
      `processor\t: ${thread}`,
      'model name\t: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz',
      'cpu MHz\t\t: 2000.000',
      `physical id\t: ${thread >> 1}`,
      `core id\t\t: 0`,
      'flags\t\t: fpu vme vmx sse4_2',
    ].join('\n'),
  )
  .join('\n\n')

suite('what the kernel tells', () => {
  test('of processors is counted by socket, core and thread', () => {
    assert.deepEqual(parseProcessor(`${twoSockets}\n\n`), {
      model: 'Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz',
      mhz: 2000,
      sockets: 2,
      cores: 2,
      threads: 4,
      flags: 'fpu vme vmx sse4_2',
      hasVirtualization: true,
    })
  })

  test('of ARM processors is one socket of whole cores', () => {
    const text = 'processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n\nprocessor\t: 1\nFeatures\t: fp asimd\n'
    const { sockets, cores, threads, flags, model, hasVirtualization } = parseProcessor(text, 'Neoverse-N1')
    assert.deepEqual([sockets, cores, threads, flags, model], [1, 2, 2, 'fp asimd', 'Neoverse-N1'])
    assert.equal(hasVirtualization, false)
  })

  test('of memory does not count caches as used', () => {
    const text =
      'MemTotal:       8388608 kB\nMemFree:        1048576 kB\nMemAvailable:   6291456 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n'
    const { totalBytes, usedBytes, freeBytes, availableBytes } = parseMemoryUse(text)
    assert.deepEqual(
      [totalBytes, usedBytes, freeBytes, availableBytes],
      [8, 2, 1, 6].map((gib) => gib * GiB),
    )
  })

  test('of load is a share of the time between two questions', () => {
    const before = { busySeconds: 10, waitSeconds: 1, totalSeconds: 100 }
    const now = { busySeconds: 15, waitSeconds: 2, totalSeconds: 110 }
    assert.deepEqual(usageBetween(before, now), { busy: 0.5, wait: 0.1 })
    assert.deepEqual(usageBetween(undefined, before), { busy: 0.1, wait: 0.01 })
    assert.deepEqual(usageBetween(now, now), { busy: 0, wait: 0 })
  })
})

test('asked twice in a row, the load is the same', async () => {
  let now = 0
  const facts = new NodeFacts({ clock: { ...systemClock, monotonic: () => now } })
  const first = await facts.usage()
  assert.equal(await facts.usage(), first)
  now += 1_000
  assert.notEqual(await facts.usage(), first)
})
