/** What stands on the wire. */
import assert from 'node:assert/strict'
import { STATUS_CODES } from 'node:http'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { Fault, type FaultKind, invalid } from '#base/fault.ts'
import {
  array,
  boolean,
  integer,
  nothing,
  number,
  object,
  optional,
  record,
  string,
  anything,
} from '#base/schema/schema.ts'
import { encode } from './encode.ts'
import { dataReply, downloadReply, faultReply, kindOfStatus, reasonPhrase, statusOf } from './reply.ts'

describe('values', () => {
  const guest = object({
    vmid: integer(),
    name: optional(string()),
    template: optional(boolean()),
    maxmem: optional(integer()),
    cpu: optional(number()),
    tags: optional(array(string())),
  })

  test('booleans are 1 or 0, integers have no fraction, text is text', () => {
    assert.deepEqual(
      encode(guest, { vmid: 100.9, name: 5, template: true, maxmem: 1073741824.5, cpu: 0.25, tags: [1, 'a'] }),
      {
        vmid: 100,
        name: '5',
        template: 1,
        maxmem: 1073741824,
        cpu: 0.25,
        tags: ['1', 'a'],
      },
    )
    assert.equal(encode(boolean(), false), 0)
    assert.equal(encode(string(), true), '1')
    assert.equal(encode(integer(), '12'), 12)
    assert.equal(encode(integer(), 12n), 12)
  })

  test('absent beats null inside objects, and nothing at all is null', () => {
    assert.deepEqual(encode(guest, { vmid: 1, name: null, template: undefined }), { vmid: 1 })
    assert.equal(encode(guest, undefined), null)
    assert.equal(encode(nothing, undefined), null)
  })

  test('what the schema does not describe does not leave the house', () => {
    assert.deepEqual(encode(array(guest), [{ vmid: 1, password: 'hunter2' }]), [{ vmid: 1 }])
    assert.deepEqual(encode(record(), { a: true, b: { c: false, d: undefined } }), { a: 1, b: { c: 0 } })
    assert.deepEqual(encode(anything, [true, null, 'x']), [1, null, 'x'])
  })

  test('a value of the wrong type is a bug that names its place', () => {
    assert.throws(() => encode(array(guest), [{ vmid: 'many' }]), /data\[0\]\.vmid is not a number/)
    assert.throws(() => encode(guest, []), /data is not an object/)
    assert.throws(() => encode(string(), {}), /data is not text/)
    assert.throws(() => encode(boolean(), 'yes'), /data is not a boolean/)
    assert.throws(() => encode(integer(), NaN), /not a number/)
  })
})

describe('success', () => {
  test('data is always there, total and changes stand beside it', () => {
    assert.equal(dataReply('json', 'null').body, '{"data":null}')
    assert.equal(dataReply('json', '[1]', { total: 5, changes: 'x' }).body, '{"data":[1],"total":5,"changes":"x"}')
    assert.equal(dataReply('extjs', '1').body, '{"data":1,"success":1}')
    assert.equal(dataReply('json', '1').contentType, 'application/json;charset=UTF-8')
  })

  test('a download cannot smuggle anything into its header', () => {
    assert.equal(
      downloadReply('a"\r\nX: 1.log', 'text').headers?.['Content-Disposition'],
      'attachment; filename="a___X:_1.log"',
    )
  })
})

describe('failure', () => {
  test('each kind has its status', () => {
    const wanted: Partial<Record<FaultKind, number>> = {
      invalid: 400,
      unauthenticated: 401,
      denied: 403,
      missing: 500,
      conflict: 500,
      unimplemented: 501,
      'too-large': 413,
      'unsupported-media': 506,
      failed: 500,
    }
    for (const [kind, status] of Object.entries(wanted)) assert.equal(statusOf(kind as FaultKind), status)
    for (const kind of ['invalid', 'unauthenticated', 'denied', 'unimplemented', 'failed'] as const) {
      assert.equal(kindOfStatus(statusOf(kind)), kind)
    }
    assert.equal(kindOfStatus(596), 'unavailable')
  })

  test('wrong parameters as every client knows them', () => {
    const reply = faultReply('json', invalid({ vmid: 'property is missing and it is not optional' }))
    assert.deepEqual(
      [reply.status, reply.reason, JSON.parse(reply.body)],
      [
        400,
        'Parameter verification failed.',
        {
          data: null,
          errors: { vmid: 'property is missing and it is not optional' },
          message: 'Parameter verification failed.\n',
          kind: 'invalid',
        },
      ],
    )
  })

  test('the cause never leaves the house', () => {
    const reply = faultReply('json', new Fault('failed', 'no', { cause: new Error('secret'), remedy: 'Try again.' }))
    assert.deepEqual(JSON.parse(reply.body), { data: null, message: 'no\n', kind: 'failed', remedy: 'Try again.' })
  })

  test('extjs says 200 and tells inside', () => {
    const reply = faultReply('extjs', new Fault('denied', 'Permission check failed'))
    assert.deepEqual([reply.status, reply.kind], [200, 'denied'])
    const { success, status, message, errors } = JSON.parse(reply.body) as Record<string, unknown>
    assert.deepEqual(
      { success, status, message, errors },
      { success: 0, status: 403, message: 'Permission check failed\n', errors: {} },
    )
  })

  test('the reason phrase is one line that Node and every client can take', () => {
    assert.equal(reasonPhrase('first – „zweite“ ü\nsecond'), 'first ? ?zweite? ü')
    assert.equal(reasonPhrase('a\r\nX-Injected: 1'), 'a')
    assert.equal(reasonPhrase(''), 'Error')
    assert.equal(reasonPhrase('\u{1F600}'), '?')
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 2000 }), (text) => {
        assert.match(reasonPhrase(text), /^[\t\x20-\x7e\x80-\xff]{1,512}$/)
      }),
    )
    assert.ok(STATUS_CODES[506])
  })
})
