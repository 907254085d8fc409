/** Property strings read back as what was written, and say what is wrong with the rest. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '../fault.ts'
import { parsePropertyString, printPropertyString, type PropertyValues, readPropertyString } from './property-string.ts'
import { boolean, enumOf, integer, number, optional, type PropertyFormat, string } from './schema.ts'

const drive: PropertyFormat = {
  file: { schema: string({ maxLength: 500 }), isDefaultKey: true },
  volume: { schema: string(), alias: 'file' },
  size: { schema: optional(string({ format: 'disk-size' })) },
  cache: { schema: optional(enumOf(['none', 'writeback'])) },
  ssd: { schema: optional(boolean()) },
  bps: { schema: optional(integer({ minimum: 1, maximum: 1000 })) },
  rate: { schema: optional(number({ minimum: 0 })) },
}

const net: PropertyFormat = {
  model: { schema: enumOf(['virtio', 'e1000']), isDefaultKey: true },
  macaddr: { schema: optional(string({ format: 'mac-addr' })) },
  virtio: { schema: string(), alias: 'macaddr', keyAlias: 'model' },
  e1000: { schema: string(), alias: 'macaddr', keyAlias: 'model' },
  bridge: { schema: optional(string()) },
}

function values(format: PropertyFormat, text: string): PropertyValues {
  const parsed = parsePropertyString(format, text)
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.complaint)
  return parsed.values
}

function complaint(format: PropertyFormat, text: string): string {
  const parsed = parsePropertyString(format, text)
  assert.ok(!parsed.ok, `'${text}' was accepted`)
  return parsed.complaint
}

describe('reading', () => {
  test('one part may go without its key', () => {
    assert.deepEqual(values(drive, 'local:100/disk.qcow2,size=32G,ssd=1'), {
      file: 'local:100/disk.qcow2',
      size: '32G',
      ssd: true,
    })
  })

  test('an alias is the key it stands for', () => {
    assert.deepEqual(values(drive, 'volume=local:1,size=1G'), { file: 'local:1', size: '1G' })
  })

  test('a key alias is a value and a key at once', () => {
    const full = { model: 'virtio', macaddr: 'BC:24:11:00:00:01', bridge: 'vmbr0' }
    assert.deepEqual(values(net, 'virtio=BC:24:11:00:00:01,bridge=vmbr0'), full)
    assert.deepEqual(values(net, 'virtio,bridge=vmbr0'), { model: 'virtio', bridge: 'vmbr0' })
    assert.deepEqual(values(net, 'model=virtio,macaddr=BC:24:11:00:00:01,bridge=vmbr0'), full)
  })

  test('booleans may be words here, in any case', () => {
    for (const word of ['1', 'on', 'Yes', 'TRUE']) assert.equal(values(drive, `a:b,ssd=${word}`).ssd, true)
    for (const word of ['0', 'off', 'No', 'FALSE']) assert.equal(values(drive, `a:b,ssd=${word}`).ssd, false)
  })

  test('what is wrong is said with its key', () => {
    assert.match(complaint(drive, 'a:b,what=1'), /^what: property is not defined/)
    assert.match(complaint(drive, 'a:b,size=1G,size=2G'), /^duplicate key in comma-separated list property: size$/)
    assert.match(complaint(drive, 'a:b,c:d'), /^duplicate key in comma-separated list property: file$/)
    assert.match(complaint(drive, 'a:b,volume=c:d'), /^duplicate key/)
    assert.match(complaint(drive, 'size=1G'), /^file: property is missing/)
    assert.match(complaint(drive, 'a:b,bps=1001'), /^bps: value must have a maximum value of 1000$/)
    assert.match(complaint(drive, 'a:b,cache=fast'), /^cache: value 'fast' does not have a value in the enumeration/)
    assert.match(complaint(drive, 'a:b,ssd=maybe'), /^ssd: type check \('boolean'\)/)
    assert.match(complaint(net, 'virtio=xx'), /^macaddr: value does not look like a valid unicast MAC address/)
  })

  test('names of the object machinery are unknown keys', () => {
    for (const name of ['__proto__', 'constructor', 'toString'])
      assert.match(complaint(drive, `a:b,${name}=1`), /not defined/)
  })

  test('whatever the text, the answer is values or a complaint', () => {
    const parts = fc.constantFrom('file=', 'virtio', '=', ',', 'size=1G', 'ssd=on', ' ', 'model', '==', 'x')
    const texts = fc.oneof(
      fc.string(),
      fc.array(parts).map((list) => list.join('')),
    )
    fc.assert(
      fc.property(fc.constantFrom(drive, net), texts, (format, text) => {
        const parsed = parsePropertyString(format, text)
        assert.equal(typeof (parsed.ok ? parsed.values : parsed.complaint), parsed.ok ? 'object' : 'string')
      }),
    )
  })
})

describe('writing', () => {
  const legalText = fc
    .string({ minLength: 0, maxLength: 30 })
    .filter((text) => !text.includes(',') && text === text.trim())
  const someDrive = fc.record(
    {
      file: legalText,
      size: fc.constantFrom('1G', '32G', '512M', '1.5T'),
      cache: fc.constantFrom('none', 'writeback'),
      ssd: fc.boolean(),
      bps: fc.integer({ min: 1, max: 1000 }),
      rate: fc.double({ min: 0, max: 1e6, noNaN: true }).map((value) => Math.abs(Number(value.toFixed(9)))),
    },
    { requiredKeys: ['file'] },
  )
  const someNet = fc.record(
    {
      model: fc.constantFrom('virtio', 'e1000'),
      macaddr: fc.constantFrom('BC:24:11:00:00:01', '02:00:00:aa:bb:cc'),
      bridge: legalText,
    },
    { requiredKeys: ['model'] },
  )

  test('what was written reads back the same', () => {
    const plain = (record: Readonly<Record<string, unknown>>) => Object.fromEntries(Object.entries(record))
    fc.assert(
      fc.property(someDrive, (wanted) => {
        assert.deepEqual(values(drive, printPropertyString(drive, wanted)), plain(wanted))
      }),
    )
    fc.assert(
      fc.property(someNet, (wanted) => {
        assert.deepEqual(values(net, printPropertyString(net, wanted)), plain(wanted))
      }),
    )
  })

  test('the default key comes first and bare, a key alias as clients expect it', () => {
    assert.equal(printPropertyString(drive, { size: '1G', file: 'local:1', ssd: true }), 'local:1,size=1G,ssd=1')
    assert.equal(
      printPropertyString(net, { bridge: 'vmbr0', macaddr: 'BC:24:11:00:00:01', model: 'virtio' }),
      'virtio=BC:24:11:00:00:01,bridge=vmbr0',
    )
  })

  test('a value that could not be read back is refused', () => {
    for (const file of ['a,b', ' a', 'a '])
      assert.throws(() => printPropertyString(drive, { file }), /cannot be written/)
  })
})

test('reading what was checked before names the field when it was not', () => {
  assert.throws(
    () => readPropertyString(drive, 'size=1G', 'scsi0'),
    (error) => isFault(error, 'invalid') && (error.fields?.scsi0 ?? '').startsWith('invalid format - file:'),
  )
})
