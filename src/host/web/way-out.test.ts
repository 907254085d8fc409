/** Two connections that are tied together: what one has said arrives, however slowly the other takes it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import { endTogether } from './way-out.ts'

/** One that says so much and hangs up. */
function talker(words: readonly string[]): Duplex {
  const talker = new Duplex({ read: () => {}, write: (_bytes, _encoding, done) => done() })
  for (const word of words) talker.push(word)
  talker.push(null)
  talker.end()
  return talker
}

/** One that takes its time with every word. */
function slowListener(heard: string[]): Duplex {
  return new Duplex({
    read: () => {},
    write(bytes: Buffer, _encoding, done) {
      heard.push(bytes.toString())
      setTimeout(done, 20)
    },
  })
}

test('one that says much and hangs up is heard to the end', async () => {
  const heard: string[] = []
  const [one, other] = [talker(['all', 'of', 'it']), slowListener(heard)]
  endTogether(one, other)
  one.pipe(other)
  await once(one, 'close')
  assert.ok(heard.length < 3, 'it hung up before it was heard')
  await once(other, 'finish')
  assert.equal(heard.join(' '), 'all of it')
})

test('one that breaks off takes the other with it', async () => {
  const [one, other] = [new Duplex({ read: () => {} }), slowListener([])]
  endTogether(one, other)
  one.pipe(other).pipe(one)
  one.destroy(new Error('reset'))
  await once(other, 'close')
})
