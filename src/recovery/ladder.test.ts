import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { judgeConsole } from './console.ts'
import { climb, type Rung } from './ladder.ts'
import { type Level, levels, suffices } from './level.ts'
import { judgeContent, parseProbe } from './probe.ts'
import { ageText, minutesText, quoteOf, recoveryTimeMs } from './record.ts'

const rungs = (failing?: Level): Record<Level, Rung> =>
  Object.fromEntries(
    levels.map((level) => [
      level,
      () => (level === failing ? Promise.reject(new Fault('damaged', `${level} broke`)) : Promise.resolve('seen')),
    ]),
  ) as Record<Level, Rung>
const facts = { clock: systemClock, onVerdict: () => {} }

for (const [at, level] of levels.entries()) {
  test(`a climb whose ${level} fails reaches exactly the level below`, async () => {
    const { reached, verdicts } = await climb(rungs(level), 'L6', facts)
    assert.equal(reached, levels[at - 1])
    assert.equal(verdicts.length, at + 1)
    assert.deepEqual({ ...verdicts.at(-1), tookMs: 0 }, { level, held: false, found: `${level} broke`, tookMs: 0 })
  })
}

test('a climb goes no higher than asked', async () => {
  const { reached, verdicts } = await climb(rungs('L3'), 'L2', facts)
  assert.equal(reached, 'L2')
  assert.equal(verdicts.length, 3)
})

test('an aborted climb proves nothing and is thrown on', async () => {
  const aborted = { ...rungs(), L1: () => Promise.reject(new Fault('aborted', 'interrupted')) }
  await assert.rejects(climb(aborted, 'L6', facts), /interrupted/)
})

test('nothing reached suffices for nothing', () => {
  assert.equal(suffices(undefined, 'L0'), false)
  assert.equal(suffices('L5', 'L6'), false)
  assert.equal(suffices('L6', 'L6'), true)
})

test('the quote says what was measured and no more', () => {
  const phases = { fetch: 400, write: 600, boot: 5_000, ready: 1_000, application: 400 }
  const base = {
    id: 'x',
    node: 'lab',
    upid: '',
    guest: 'vm/100',
    archive: '',
    started: '',
    ended: '',
    wanted: 'L6' as const,
    reached: 'L6' as const,
    proven: true,
    verdicts: [],
    phases,
    dataAgeMs: 41_200,
  }
  assert.equal(
    quoteOf({ ...base, recoveryTimeMs: recoveryTimeMs(phases) }),
    'VM 100 proven to L6: restored, booted and answering in 00:07.4; data from 00:00:41 before now',
  )
  assert.equal(
    quoteOf({
      ...base,
      reached: 'L2',
      proven: false,
      verdicts: [{ level: 'L3', held: false, found: 'no boot', tookMs: 1 }],
    }),
    'VM 100 NOT proven: reached L2 of L6; L3 failed: no boot; data from 00:00:41 before now',
  )
})

test('durations read as people write them', () => {
  assert.equal(minutesText(59_960), '01:00.0')
  assert.equal(minutesText(3_600_000), '01:00:00.0')
  assert.equal(ageText(90_061_000), '1 d 01:01:01')
})

test('a console is silent, up or dead, and dead wins', () => {
  assert.equal(judgeConsole('', 'SeaBIOS (version 1.16)').state, 'silent')
  assert.deepEqual(judgeConsole('boot 3\nREADY\n', ''), { state: 'up', line: 'READY' })
  assert.deepEqual(judgeConsole('', 'Boot failed: not a bootable disk\n\nNo bootable device.\n'), {
    state: 'dead',
    why: "the firmware found nothing to boot ('No bootable device.')",
  })
  assert.equal(judgeConsole('Linux version 6.1\nKernel panic - not syncing: no init', '').state, 'dead')
})

test('a probe is read, and judges what came back', () => {
  const probe = parseProbe('http,path=/,contains=a%2Cb', 'probe0')
  assert.deepEqual(probe, { type: 'http', path: '/', port: 80, status: 200, contains: 'a,b' })
  assert.match(judgeContent(probe, Buffer.from('xa,by')), /expected text found/)
  assert.throws(() => judgeContent(probe, Buffer.from('')), /the text 'a,b' is not in its 0 bytes/)
  assert.throws(
    () => parseProbe('http', 'probe0'),
    (error: Fault) => error.fields?.probe0 !== undefined,
  )
  assert.deepEqual(parseProbe('tcp,port=25', 'probe0'), { type: 'tcp', path: '', port: 25, status: 200 })
  for (const odd of ['tcp', 'tcp,port=25,contains=x', 'tcp,port=25,path=/', 'file']) {
    assert.throws(
      () => parseProbe(odd, 'probe0'),
      (error: Fault) => error.fields?.probe0 !== undefined,
      odd,
    )
  }
  assert.throws(
    () => parseProbe('ftp,path=/', 'probe0'),
    (error: Fault) => /enumeration/.test(error.fields?.probe0 ?? ''),
  )
})
