import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { asUpid, isUpid, parseUpid, printUpid, type Upid } from './upid.ts'

const word = (pattern: RegExp, maxLength: number) => fc.stringMatching(pattern).map((text) => text.slice(0, maxLength))
const upids: fc.Arbitrary<Upid> = fc.record(
  {
    node: fc.stringMatching(/^[a-zA-Z0-9]([a-zA-Z0-9-]{0,10}[a-zA-Z0-9])?$/),
    pid: fc.integer({ min: 1, max: 4_194_304 }),
    pstart: fc.integer({ min: 0, max: 0xfffffffff }),
    starttime: fc.integer({ min: 0, max: 0xffffffff }),
    type: fc.stringMatching(/^[a-z_]{1,16}$/),
    id: word(/^[\w.>-]*$/, 40),
    user: fc.stringMatching(/^[^\s:/@!\p{C}]{1,10}@[a-z][a-z0-9]{1,8}(![a-z][a-z0-9]{1,8})?$/u),
  },
  { noNullPrototype: true },
)

test('every identifier that is printed is read back as it was', () => {
  fc.assert(
    fc.property(upids, (upid) => {
      const text = printUpid(upid)
      assert.deepEqual(parseUpid(text), upid)
      assert.ok(isUpid(text) && !text.includes('/'))
    }),
  )
})

test('any text is either refused by name or read and printed the same', () => {
  const nearly = fc.array(fc.constantFrom('UPID', ':', 'node', '0000ABCD', '00000001F', 'a@b', '/', ' ', '>', '..'), {
    maxLength: 20,
  })
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        nearly.map((parts) => parts.join('')),
      ),
      (text) => {
        try {
          assert.equal(printUpid(parseUpid(text)), text.toUpperCase() === text ? text : asUpid(text))
        } catch (error) {
          assert.ok(isFault(error, 'invalid') && error.fields?.upid === 'unable to parse worker upid')
        }
      },
    ),
  )
})

test('numbers have eight hexadecimal digits, the start of a process may have nine', () => {
  const upid = { node: 'n1', pid: 26, pstart: 0x123456789, starttime: 1, type: 'qmstart', id: '', user: 'root@pam' }
  assert.equal(printUpid(upid), 'UPID:n1:0000001A:123456789:00000001:qmstart::root@pam:')
  assert.equal(asUpid('UPID:n1:0000001a:123456789:00000001:qmstart::root@pam:'), printUpid(upid))
})

test('what cannot be in an identifier is refused', () => {
  const good = { node: 'n1', pid: 26, pstart: 1, starttime: 1, type: 'qmstart', id: '100', user: 'root@pam' }
  const bad: Partial<Upid>[] = [{ id: 'a:b' }, { id: 'a/b' }, { id: 'a b' }, { type: '' }, { user: '' }, { node: '-' }]
  for (const part of bad) assert.throws(() => printUpid({ ...good, ...part }), /would be no task identifier/)
  assert.throws(() => printUpid({ ...good, id: 'x'.repeat(250) }), /longer than 240 bytes/)
})
