import assert from 'node:assert/strict'
import { test } from 'node:test'
import { redactorFor, withoutSecrets } from './secrets.ts'

const params = { vmid: 100, cipassword: 'correct horse\nbattery staple', keys: { deep: ['swordfish'] }, pin: '42' }

test('secret parameters are left out of what is kept', () => {
  assert.deepEqual(withoutSecrets(params, ['cipassword', 'keys']), { vmid: 100, pin: '42' })
  assert.deepEqual(withoutSecrets(params, []), params)
  assert.equal(withoutSecrets(null, ['cipassword']), null)
})

test('their text vanishes from lines and results, line by line, at any depth', () => {
  const hide = redactorFor(params, ['cipassword', 'keys', 'pin'])
  assert.equal(hide.text('tried battery staple and swordfish at port 42'), 'tried ******** and ******** at port 42')
  assert.deepEqual(hide.json({ a: ['x swordfish', 1, null], b: { c: 'correct horse\nbattery staple' } }), {
    a: ['x ********', 1, null],
    b: { c: '********' },
  })
})

test('a secret within a longer one does not leave its rest behind', () => {
  const hide = redactorFor({ a: 'sword', b: 'swordfish' }, ['a', 'b'])
  assert.equal(hide.text('swordfish sword'), '******** ********')
})
