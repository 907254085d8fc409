import assert from 'node:assert/strict'
import { test } from 'node:test'
import { asOne, Fault, messageOf } from './fault.ts'

function failing(first: Error, ...later: Error[]): unknown {
  try {
    using undo = new DisposableStack()
    for (const one of later) {
      undo.defer(() => {
        throw one
      })
    }
    throw first
  } catch (thrown) {
    return thrown
  }
}
const full = new Fault('exhausted', 'no space left', { remedy: 'Free space.' })

test('what failed first is what failed, also where letting go fails as well', () => {
  const thrown = asOne(failing(full, new Fault('unavailable', 'the lock stays'), new Fault('failed', 'it is gone')))
  assert.ok(thrown instanceof Fault)
  assert.equal(thrown.kind, 'exhausted')
  assert.equal(thrown.message, 'no space left; it is gone; the lock stays')
  assert.equal(thrown.remedy, 'Free space.')
})

test('what fails twice for the same reason is told once', () => {
  assert.equal(messageOf(failing(full, full)), 'no space left')
})

test('a mistake of ours stays one, with its place', () => {
  const bug = new TypeError('x is undefined')
  assert.equal(asOne(failing(bug, full)), bug)
  assert.equal(asOne(full), full)
})
