/** What passes, what does not, and in which words. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { checkProperties, checkValue, type Errors } from './check.ts'
import {
  array,
  boolean,
  enumOf,
  indexed,
  integer,
  nothing,
  number,
  object,
  optional,
  type Schema,
  string,
} from './schema.ts'

function complaintAbout(schema: Schema, raw: unknown): string | undefined {
  const errors: Errors = {}
  checkValue(schema, raw, 'it', errors)
  return errors.it
}

function valueOf(schema: Schema, raw: unknown): unknown {
  const errors: Errors = {}
  const value = checkValue(schema, raw, 'it', errors)
  assert.deepEqual(errors, {})
  return value
}

describe('a set of parameters', () => {
  const params = {
    vmid: integer({ minimum: 100 }),
    name: optional(string()),
    size: optional(string({ requires: 'name' })),
  }

  test('every wrong field is named at once', () => {
    assert.deepEqual(checkProperties(params, { vmid: 'x', size: '1', what: '2' }), {
      ok: false,
      errors: {
        vmid: "type check ('integer') failed - got 'x'",
        what: 'property is not defined in schema and the schema does not allow additional properties',
        name: "missing property required by 'size'",
      },
    })
  })

  test('a required parameter that is absent or null is missing', () => {
    for (const raw of [{}, { vmid: null }, { vmid: undefined }]) {
      assert.deepEqual(checkProperties(params, raw), {
        ok: false,
        errors: { vmid: 'property is missing and it is not optional' },
      })
    }
  })

  test('null and absent are the same for an optional parameter', () => {
    assert.deepEqual(checkProperties(params, { vmid: 100, name: null }), { ok: true, values: { vmid: 100 } })
  })

  test('unknown parameters pass only where they may', () => {
    const checked = checkProperties(params, { vmid: 100, more: [1] }, { allowsExtra: true })
    assert.deepEqual(checked, { ok: true, values: { vmid: 100, more: [1] } })
  })

  test('names of the object machinery are names like any other', () => {
    fc.assert(
      fc.property(fc.constantFrom('__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf'), (name) => {
        const raw: unknown = JSON.parse(`{"vmid":100,"${name}":{"isAdmin":true}}`)
        const checked = checkProperties(params, raw as Record<string, unknown>)
        assert.ok(!checked.ok)
        assert.deepEqual(Object.keys(checked.errors), [name])
        assert.equal(
          Object.getOwnPropertyDescriptor(checked.errors, name)?.value,
          'property is not defined in schema and the schema does not allow additional properties',
        )
        const passed = checkProperties(params, raw as Record<string, unknown>, { allowsExtra: true })
        assert.ok(passed.ok)
        assert.equal(Object.getPrototypeOf(passed.values), Object.prototype)
      }),
    )
  })

  test('a family is as long as it says', () => {
    const family = indexed('scsi', 3, string())
    assert.deepEqual(checkProperties(family, { scsi0: 'a', scsi2: 'b' }), {
      ok: true,
      values: { scsi0: 'a', scsi2: 'b' },
    })
    assert.equal(checkProperties(family, { scsi3: 'a' }).ok, false)
  })
})

describe('numbers', () => {
  test('an integer is digits with an optional sign, or a whole JSON number', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), (value) => {
        assert.equal(valueOf(integer(), value), value)
        assert.equal(valueOf(integer(), String(value)), value)
      }),
    )
  })

  test('nothing else is an integer', () => {
    const others = [
      '',
      ' 1',
      '1 ',
      '1.0',
      '1e3',
      '0x10',
      'NaN',
      'Infinity',
      '٣',
      1.5,
      NaN,
      Infinity,
      true,
      [],
      {},
      ['1', '2'],
    ]
    for (const raw of [...others, '9007199254740993']) assert.match(complaintAbout(integer(), raw) ?? '', /^type check/)
  })

  test('bounds hold on both sides, and the text says the bound', () => {
    fc.assert(
      fc.property(fc.integer({ min: -1000, max: 1000 }), fc.nat(1000), fc.integer(), (minimum, span, value) => {
        const maximum = minimum + span
        const complaint = complaintAbout(integer({ minimum, maximum }), String(value))
        if (value < minimum) assert.equal(complaint, `value must have a minimum value of ${minimum}`)
        else if (value > maximum) assert.equal(complaint, `value must have a maximum value of ${maximum}`)
        else assert.equal(complaint, undefined)
      }),
    )
  })

  test('a number may have a fraction but no exponent as text', () => {
    assert.equal(valueOf(number(), '0.5'), 0.5)
    assert.equal(valueOf(number(), '.5'), 0.5)
    assert.equal(valueOf(number(), -2.25), -2.25)
    for (const raw of ['1e3', '', '.', '1,5', 'x']) assert.match(complaintAbout(number(), raw) ?? '', /^type check/)
  })
})

test('a boolean is 1 or 0, or a JSON boolean, and no word', () => {
  for (const raw of [1, '1', true]) assert.equal(valueOf(boolean(), raw), true)
  for (const raw of [0, '0', false]) assert.equal(valueOf(boolean(), raw), false)
  for (const raw of ['on', 'yes', 'true', '', 2, '01', []])
    assert.match(complaintAbout(boolean(), raw) ?? '', /boolean/)
})

describe('text', () => {
  test('a number is text, a list or an object is not', () => {
    assert.equal(valueOf(string(), 2048), '2048')
    for (const raw of [['a'], {}, true]) assert.match(complaintAbout(string(), raw) ?? '', /^type check \('string'\)/)
  })

  test('lengths are counted inclusively', () => {
    fc.assert(
      fc.property(fc.nat(20), fc.nat(20), fc.string({ maxLength: 50 }), (low, span, text) => {
        const rules = string({ minLength: low, maxLength: low + span })
        const isGood = text.length >= low && text.length <= low + span
        assert.equal(complaintAbout(rules, text) === undefined, isGood)
      }),
    )
  })

  test('a pattern must match the whole text, again and again', () => {
    const rules = string({ pattern: /a|b/g })
    for (const text of ['a', 'b', 'a', 'b']) assert.equal(complaintAbout(rules, text), undefined)
    for (const text of ['ab', 'xa', 'a\n', ''])
      assert.equal(complaintAbout(rules, text), 'value does not match the regex pattern')
  })

  test('an enumeration lists what it takes', () => {
    assert.equal(
      complaintAbout(enumOf(['raw', 'qcow2']), 'vmdk'),
      "value 'vmdk' does not have a value in the enumeration 'raw, qcow2'",
    )
  })

  test('a list joins for a -list format only', () => {
    assert.equal(valueOf(string({ format: 'pve-vmid-list' }), ['100', 101]), '100,101')
    assert.match(complaintAbout(string({ format: 'pve-vmid-list' }), [{ a: 1 }]) ?? '', /^type check/)
    assert.match(complaintAbout(string({ format: 'pve-vmid-list' }), '100,9') ?? '', /^invalid format - /)
  })
})

test('a single value becomes a list of one, and each item is checked', () => {
  const list = array(integer({ maximum: 5 }))
  assert.deepEqual(valueOf(list, '3'), [3])
  assert.deepEqual(valueOf(list, ['1', 2]), [1, 2])
  assert.match(complaintAbout(list, [1, 6, 'x']) ?? '', /maximum value of 5, type check/)
})

test('an object is checked key by key', () => {
  const schema = object({ a: integer(), b: optional(boolean()) })
  assert.deepEqual(valueOf(schema, { a: '1', b: 1 }), { a: 1, b: true })
  assert.match(complaintAbout(schema, { b: 1, c: 2 }) ?? '', /c: .*not defined.*a: property is missing/)
  assert.match(complaintAbout(schema, [1]) ?? '', /^type check \('object'\)/)
})

test('whatever is sent, the check answers and never throws', () => {
  const schemas: Schema[] = [
    string({ maxLength: 5, format: 'pve-node' }),
    string({ format: 'CIDR-list' }),
    integer({ minimum: 1 }),
    number(),
    boolean(),
    array(string()),
    object({ a: optional(array(integer())) }),
    nothing,
  ]
  fc.assert(
    fc.property(fc.constantFrom(...schemas), fc.anything(), (schema, raw) => {
      const errors: Errors = {}
      checkValue(schema, raw, 'it', errors)
      for (const text of Object.values(errors)) assert.equal(typeof text, 'string')
    }),
  )
})
