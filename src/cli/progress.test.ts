import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import { progressOn } from './progress.ts'

test('whoever watches sees share, rate and remaining time in one line; in a file they come now and then', () => {
  for (const [isWatched, isQuiet, least, most] of [
    [true, false, 30, 61],
    [false, false, 5, 6],
    [true, true, 0, 0],
  ] as const) {
    let now = 0
    const clock = { ...systemClock, monotonic: () => now }
    const lines: [string, boolean | undefined][] = []
    const shows = { language: 'ja', isWatched, show: (line: string, isTransient?: boolean) => lines.push([line, isTransient]) } as const // prettier-ignore
    const show = progressOn(shows, { isQuiet, clock })
    for (; now <= 60_000; now += 1_000) show({ phase: 'packs', fraction: now / 100_000, bytes: (now / 1_000) * MiB })
    assert.ok(lines.length >= least && lines.length <= most, `${lines.length} lines`)
    assert.ok(lines.every(([, isTransient]) => isTransient === isWatched))
    if (most > 0) assert.equal(lines.at(-1)?.[0], 'パック: 60 %, 60.0 MiB, 1.0 MiB/s, 残り 0:40')
  }
})
