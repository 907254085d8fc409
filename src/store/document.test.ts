import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, isFault } from '#base/fault.ts'
import { array, integer, object, optional, string } from '#base/schema/schema.ts'
import { Documents } from './document.ts'
import { MemoryWorld, openMemoryStore } from './memory.ts'

const schema = object({ size: integer({ minimum: 0 }), note: optional(string()), tags: array(string()) })

function place() {
  const store = openMemoryStore(new MemoryWorld())
  return { store, songs: new Documents(store, { noun: 'song', prefix: 'songs/', schema }) }
}

test('a document is created once, read back, changed and deleted', async () => {
  const { songs } = place()
  await songs.create('one', { size: 1, tags: ['a'] })
  await assert.rejects(songs.create('one', { size: 2, tags: [] }), /^Fault: song 'one' already exists$/)
  assert.deepEqual(await songs.update('one', (song) => ({ ...song, size: song.size + 1 })), { size: 2, tags: ['a'] })
  assert.deepEqual(
    (await songs.list()).map(({ name, value }) => [name, value.size]),
    [['one', 2]],
  )
  await songs.delete('one')
  await assert.rejects(songs.get('one'), /^Fault: song 'one' does not exist$/)
  await assert.rejects(songs.delete('one'), /^Fault: song 'one' does not exist$/)
})

test('changes made at the same time all arrive', async () => {
  const { songs } = place()
  await songs.create('n', { size: 0, tags: [] })
  await Promise.all(Array.from({ length: 20 }, () => songs.update('n', (song) => ({ ...song, size: song.size + 1 }))))
  assert.equal((await songs.get('n')).value.size, 20)
})

test('a document may come and go by what a change returns', async () => {
  const { songs } = place()
  assert.deepEqual(await songs.alter('n', (song) => song ?? { size: 1, tags: [] }), { size: 1, tags: [] })
  assert.equal(await songs.alter('n', () => undefined), undefined)
  assert.equal(await songs.find('n'), undefined)
  assert.equal(await songs.alter('n', () => undefined), undefined)
})

test('a document of the wrong shape is called damaged, with its key', async () => {
  const { store, songs } = place()
  await store.transact([], [{ put: 'songs/bad', value: { size: 'many', tags: [] } }])
  const isNamed = (error: unknown) => isFault(error, 'damaged') && /'songs\/bad'.*size: type check/.test(error.message)
  await assert.rejects(songs.find('bad'), isNamed)
  await assert.rejects(songs.list(), isNamed)
})

test('a value of the wrong shape is not written', async () => {
  const { store, songs } = place()
  await assert.rejects(songs.put('bad', { size: -1, tags: [] }), /about to be written wrong/)
  assert.equal(await store.get('songs/bad'), undefined)
})

test('two documents change together or not at all', async () => {
  const { store, songs } = place()
  await songs.create('a', { size: 1, tags: [] })
  await songs.create('b', { size: 2, tags: [] })
  const [a, b] = [await songs.get('a'), await songs.get('b')]
  await songs.put('b', { size: 9, tags: [] })
  const swap = store.transact([songs.guard(a), songs.guard(b)], [songs.write('a', b.value), songs.write('b', a.value)])
  await assert.rejects(swap, (error) => isFault(error, 'conflict'))
  assert.equal((await songs.get('a')).value.size, 1)
})

test('a conflict found by the change itself is its answer, not a reason to try again', async () => {
  const { songs } = place()
  await songs.create('n', { size: 0, tags: [] })
  let calls = 0
  const change = () => {
    calls += 1
    throw new Fault('conflict', 'the song is playing')
  }
  await assert.rejects(songs.update('n', change), /^Fault: the song is playing$/)
  assert.equal(calls, 1)
})
