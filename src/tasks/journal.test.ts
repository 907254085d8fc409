import assert from 'node:assert/strict'
import { appendFile, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { type JournalRecord, openJournal, stateOf } from './journal.ts'

async function place() {
  const directory = await mkdtemp(join(tmpdir(), 'hako-journal-'))
  return { path: join(directory, 'journal'), [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) }
}

const step = fc.constantFrom('a', 'b', 'süß\n"')
const records: fc.Arbitrary<JournalRecord> = fc.oneof(
  fc.record({ event: fc.constantFrom('begin', 'undo', 'undone'), step }),
  fc.record({ event: fc.constant('done'), step, result: fc.jsonValue() as fc.Arbitrary<string> }),
  fc.record({ event: fc.constant('succeeded') }),
  fc.record({ event: fc.constant('unwinding'), reason: fc.string() }),
)

test('what was added is there when the journal is opened again, however often that happens', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(records, { maxLength: 4 }), { maxLength: 3 }), async (sessions) => {
      await using here = await place()
      for (const session of sessions) {
        await using journal = await openJournal(here.path)
        for (const record of session) await journal.add(record)
      }
      await using journal = await openJournal(here.path)
      assert.deepEqual(journal.records, JSON.parse(JSON.stringify(sessions.flat())))
    }),
    { numRuns: 40 },
  )
})

test('cut off anywhere, a journal keeps its whole lines and can be continued', async () => {
  await using here = await place()
  const all: JournalRecord[] = [
    { event: 'accepted', upid: 'x' },
    { event: 'begin', step: 'süß' },
    { event: 'done', step: 'süß', result: { a: ['東京'] } },
  ]
  {
    await using journal = await openJournal(here.path)
    for (const record of all) await journal.add(record)
  }
  const whole = await readFile(here.path)
  for (let size = 0; size <= whole.length; size += 1) {
    await writeFile(here.path, whole)
    await truncate(here.path, size)
    const lines = whole.subarray(0, size).toString('latin1').split('\n').length - 1
    {
      await using journal = await openJournal(here.path)
      assert.deepEqual(journal.records, all.slice(0, lines))
      await journal.add({ event: 'succeeded' })
    }
    await using journal = await openJournal(here.path)
    assert.deepEqual(journal.records, [...all.slice(0, lines), { event: 'succeeded' }])
  }
})

test('a broken line that is not the last is damage, and is named', async () => {
  await using here = await place()
  for (const line of ['{"event":"beg', '{"event":"begin"}', '{"event":"dance","step":"a"}', '7', '']) {
    await writeFile(here.path, '{"event":"succeeded"}\n')
    await appendFile(here.path, `${line}\n{"event":"succeeded"}\n`)
    const isNamed = (error: unknown) =>
      isFault(error, 'damaged') && /line 2 of the journal '.*journal'/.test(error.message)
    await assert.rejects(openJournal(here.path), isNamed)
  }
})

test('the state tells what began and is not undone, in order, and the results', () => {
  const state = stateOf([
    { event: 'accepted', upid: 'x' },
    { event: 'begin', step: 'a' },
    { event: 'done', step: 'a', result: 1 },
    { event: 'begin', step: 'b' },
    { event: 'done', step: 'b' },
    { event: 'begin', step: 'c' },
    { event: 'unwinding', reason: 'why' },
    { event: 'undo', step: 'c' },
    { event: 'undone', step: 'c' },
    { event: 'undo', step: 'b' },
  ])
  assert.deepEqual(state, {
    stage: { is: 'unwinding', reason: 'why' },
    toUndo: ['a', 'b'],
    done: { a: 1, b: undefined },
  })
})
