/** Queries and bodies, as clients in the field send them. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { bodyTypeOf, collect, parseBody, parseForm, parseJson } from './body.ts'

describe('forms', () => {
  test('what a browser encodes is read back, whatever it is', () => {
    const text = fc.string({ unit: 'grapheme' })
    const key = text.filter((name) => name !== '_dc' && name !== '')
    fc.assert(
      fc.property(fc.uniqueArray(fc.tuple(key, text), { selector: ([name]) => name }), (pairs) => {
        const raw = parseForm(new URLSearchParams(pairs).toString())
        assert.deepEqual(raw, Object.fromEntries(pairs))
      }),
    )
  })

  test('a key that repeats makes a list', () => {
    assert.deepEqual(parseForm('command=ls&command=-l&x=1&command=a%20b'), { command: ['ls', '-l', 'a b'], x: '1' })
  })

  test('semicolons separate too, plus is a space, empty parts vanish', () => {
    assert.deepEqual(parseForm('&a=1;b=x+y&&c;'), { a: '1', b: 'x y', c: '' })
  })

  test('the cache buster is dropped', () => {
    assert.deepEqual(parseForm('_dc=123&a=1'), { a: '1' })
  })

  test('text that nobody escaped passes as it is', () => {
    assert.deepEqual(parseForm('net0=virtio=BC:24:11:00:00:01,bridge=vmbr0&p=100%&q=50%zz'), {
      net0: 'virtio=BC:24:11:00:00:01,bridge=vmbr0',
      p: '100%',
      q: '50%zz',
    })
  })

  test('what is not UTF-8 is refused by name, not stored as something else', () => {
    assert.throws(
      () => parseForm('password=caf%E9'),
      (error) => isFault(error, 'invalid') && error.fields?.password !== undefined,
    )
  })

  test('names of the object machinery become parameters', () => {
    const raw = parseForm('__proto__=1&constructor=2&__proto__=3')
    assert.deepEqual(Object.keys(raw), ['__proto__', 'constructor'])
    assert.equal(Object.getPrototypeOf(raw), Object.prototype)
  })

  test('a body of nothing but names takes no time to speak of, and too many names are refused', () => {
    const started = performance.now()
    const { a } = parseForm('a;'.repeat(250_000))
    assert.ok(Array.isArray(a) && a.length === 250_000)
    assert.ok(performance.now() - started < 5_000, 'copying the list for each value takes a minute')
    const many = Object.fromEntries(Array.from({ length: 2_001 }, (_, at) => [`p${at}`, '1']))
    const isRefused = (error: unknown) => isFault(error, 'invalid') && error.message.startsWith('too many parameters')
    assert.throws(() => parseForm(new URLSearchParams(many).toString()), isRefused)
    assert.throws(() => parseJson(JSON.stringify(many)), isRefused)
  })

  test('whatever is sent is read or refused', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        try {
          parseForm(text)
        } catch (error) {
          assert.ok(isFault(error, 'invalid'))
        }
      }),
    )
  })
})

describe('JSON', () => {
  test('any object comes through as it is', () => {
    const key = fc.string().filter((name) => name !== '__proto__')
    fc.assert(
      fc.property(fc.dictionary(key, fc.jsonValue(), { noNullPrototype: true }), (object) => {
        assert.deepEqual(parseJson(JSON.stringify(object)), JSON.parse(JSON.stringify(object)))
      }),
    )
  })

  test('an empty body has no parameters, anything but an object is refused', () => {
    assert.deepEqual(parseJson(''), {})
    assert.deepEqual(parseJson(' \n'), {})
    for (const text of ['[]', '1', 'null', '"x"', '{', 'a=1']) {
      assert.throws(
        () => parseJson(text),
        (error) => isFault(error, 'invalid'),
      )
    }
  })
})

test('content types: form, JSON, and none at all, which is a form', () => {
  for (const type of [
    undefined,
    '',
    'application/x-www-form-urlencoded',
    'Application/X-WWW-Form-Urlencoded; charset=UTF-8',
  ]) {
    assert.equal(bodyTypeOf(type), 'form')
  }
  for (const type of ['application/json', 'application/json;charset=UTF-8']) assert.equal(bodyTypeOf(type), 'json')
  assert.equal(bodyTypeOf('multipart/form-data; boundary=x'), 'multipart')
  for (const type of ['text/plain', 'application/xml', 'application/jsonx', 'json']) {
    assert.throws(
      () => bodyTypeOf(type),
      (error) => isFault(error, 'unsupported-media'),
    )
  }
})

test('a body that is not UTF-8 is refused', () => {
  assert.throws(
    () => parseBody(Buffer.from([0x61, 0x3d, 0xff]), 'form'),
    (error) => isFault(error, 'invalid'),
  )
  assert.deepEqual(parseBody(Buffer.from('a=ü\r\n'), 'form'), { a: 'ü' })
})

test('collecting stops at the limit, whatever the pieces', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 20 })), fc.nat(100), async (parts, maximum) => {
      async function* stream() {
        yield* parts
      }
      const size = parts.reduce((sum, part) => sum + part.length, 0)
      if (size <= maximum) assert.deepEqual(Buffer.from(await collect(stream(), maximum)), Buffer.concat(parts))
      else await assert.rejects(collect(stream(), maximum), (error) => isFault(error, 'too-large'))
    }),
  )
})
