import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, isFault } from '#base/fault.ts'
import { type Journal, memoryJournal } from './journal.ts'
import { operation } from './operation.ts'
import { perform, unwind } from './perform.ts'

/** Notes what happens; `fail` names what throws. */
function band(fail: ReadonlySet<string> = new Set()) {
  const notes: string[] = []
  const play = (note: string) => {
    notes.push(note)
    if (fail.has(note)) throw new Fault('failed', `${note} went wrong`)
  }
  const song = operation<{ key: string }, object>('song')
    .step('drums', {
      do: ({ params }) => (play('drums'), `drums in ${params.key}`),
      undo: () => play('no drums'),
      always: true,
    })
    .step('bass', { do: ({ done }) => (play('bass'), { after: done.drums }), undo: () => play('no bass') })
    .step('voice', { do: ({ done }) => (play('voice'), done.bass.after.length), undo: () => play('no voice') })
  return { song, notes }
}

test('results of earlier steps reach later ones; only undos marked always run after success', async () => {
  const { song, notes } = band()
  const done = await perform(song, { key: 'D' }, {}, memoryJournal())
  assert.deepEqual(done, { drums: 'drums in D', bass: { after: 'drums in D' }, voice: 10 })
  assert.deepEqual(notes, ['drums', 'bass', 'voice', 'no drums'])
})

test('on failure everything that began is undone in reverse, also the step that failed', async () => {
  const { song, notes } = band(new Set(['bass']))
  await assert.rejects(perform(song, { key: 'D' }, {}, memoryJournal()), /^Fault: bass went wrong$/)
  assert.deepEqual(notes, ['drums', 'bass', 'no bass', 'no drums'])
})

test('an undo that fails for good stops the undos before it, and both failures are told', async () => {
  const { song, notes } = band(new Set(['voice', 'no bass']))
  await assert.rejects(perform(song, { key: 'D' }, {}, memoryJournal()), (error) => {
    assert.ok(isFault(error, 'failed'))
    assert.equal(error.message, "voice went wrong; undo of 'bass' failed: no bass went wrong")
    assert.match(error.remedy ?? '', /^Not undone: 'bass', 'drums'\./)
    return true
  })
  assert.deepEqual(notes.slice(3), ['no voice', 'no bass', 'no bass', 'no bass'])
})

test('what could not be cleaned up after success is a failure', async () => {
  const { song } = band(new Set(['no drums']))
  await assert.rejects(perform(song, { key: 'D' }, {}, memoryJournal()), /undo of 'drums' failed/)
})

test('a journal that can no longer be written makes the operation undone, all of it', async () => {
  for (let writable = 0; writable < 7; writable += 1) {
    const { song, notes } = band()
    const inner = memoryJournal()
    const full: Journal = {
      records: inner.records,
      add: async (record) => {
        if (inner.records.length >= writable) throw new Fault('exhausted', 'no space left')
        await inner.add(record)
      },
    }
    await assert.rejects(perform(song, { key: 'D' }, {}, full), /no space left/)
    const played = notes.filter((note) => !note.startsWith('no '))
    assert.deepEqual(notes.slice(played.length), played.map((note) => `no ${note}`).toReversed())
  }
})

test('a journal of another version whose steps are unknown is not guessed about', async () => {
  const { song, notes } = band()
  const journal = memoryJournal([{ event: 'begin', step: 'flute' }])
  await assert.rejects(unwind(song, { key: 'D' }, {}, journal), /this version of 'song' has no step 'flute'/)
  assert.deepEqual(notes, [])
})
