/** What a machine must have, and how that is told. */
import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { test } from 'node:test'
import stringWidth from 'string-width'
import { GiB, MiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { labSettings } from './lab-settings.ts'
import {
  type Check,
  isFree,
  judgeArchitecture,
  judgeClock,
  judgeDisk,
  judgeMemory,
  judgeRoot,
  preflight,
} from './preflight.ts'
import { preflightTable, wrap } from './preflight-table.ts'

test('too little memory or disk stops the lab and says how much is needed', () => {
  assert.equal(judgeMemory(2 * GiB).state, 'ok')
  const memory = judgeMemory(512 * MiB)
  assert.equal(memory.state, 'missing')
  assert.match(memory.found.en, /512 MiB/)
  assert.match(memory.means.ja, /1\.0 GiB 必要/)
  assert.equal(judgeDisk(4 * GiB).state, 'ok')
  assert.match(judgeDisk(900 * MiB).means.en, /1\.0 GiB are needed below \/var/)
})

test('another processor and another user stop it too', () => {
  assert.equal(judgeArchitecture('x64', '6.1').state, 'ok')
  assert.equal(judgeArchitecture('arm64', '6.1').state, 'missing')
  assert.equal(judgeRoot(0).state, 'ok')
  assert.match(judgeRoot(1000).means.en, /sudo \.\/hako lab/)
})

test('a clock nobody keeps, or behind the program itself, is a fallback that is told', () => {
  const now = Date.UTC(2026, 5, 1)
  assert.equal(judgeClock(now, now - 1, true).state, 'ok')
  assert.match(judgeClock(now, now - 1, false).means.en, /not known to be synchronized/)
  assert.match(judgeClock(0, now, true).means.en, /behind/)
})

test('a port in use is seen', async (t) => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const address = server.address()
  assert.ok(typeof address === 'object' && address)
  assert.equal(await isFree('127.0.0.1', address.port), false)
  const settings = labSettings({ HAKO_API_PORT: String(address.port) })
  const checks = await preflight({ host: machine(), settings, clock: systemClock, isRunning: false })
  const port = checks.find(({ name }) => name.en === 'port of the API')
  assert.equal(port?.state, 'missing')
  assert.match(port?.means.en ?? '', /--port/)
})

const checks: Check[] = [
  {
    name: { en: 'memory', ja: 'メモリー' },
    state: 'ok',
    found: { en: '2 GiB', ja: '2 GiB' },
    means: { en: 'enough', ja: '十分です' },
  },
  {
    name: { en: 'virtualization', ja: '仮想化' },
    state: 'fallback',
    found: { en: 'none', ja: 'なし' },
    means: { en: 'KVM cannot run guests here', ja: 'KVM でゲストを動かせません' },
    fallback: {
      en: 'software emulation, slower and with the same result',
      ja: 'ソフトウェアエミュレーションを使います',
    },
  },
]

test('the table says what was found, what it means, and the way taken instead', () => {
  assert.equal(
    preflightTable(checks, 'en', undefined),
    [
      '  ok        memory          2 GiB: enough',
      '  fallback  virtualization  none: KVM cannot run guests here → software emulation, slower and with the same result',
    ].join('\n'),
  )
})

test('in either language no line is wider than the terminal', () => {
  for (const language of ['en', 'ja'] as const) {
    for (const line of preflightTable(checks, language, 70).split('\n')) assert.ok(stringWidth(line) <= 70, line)
  }
})

test('lines break at spaces, wide letters anywhere, and no text is lost', () => {
  assert.deepEqual(wrap('one two three', 8), ['one two', 'three'])
  assert.deepEqual(wrap('復元した複製', 8), ['復元した', '複製'])
  assert.deepEqual(wrap('abcdefghij', 4), ['abcd', 'efgh', 'ij'])
  assert.deepEqual(wrap('', 4), [])
})
