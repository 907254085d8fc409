/**
 * Values as they stand in replies: encoded by the schema, not by what JavaScript makes of them, because
 * clients written in Go refuse a fraction in an integer and know no boolean but 1 and 0.
 *
 * What the schema does not describe does not leave the house: an undescribed key is dropped, so a record
 * that grows a secret does not leak it. A value of the wrong type is a bug and throws.
 */
import type { Properties, Schema } from '#base/schema/schema.ts'

type Encoder = (value: unknown, where: string) => unknown

const compiled = new WeakMap<Schema, Encoder>()

/** Texts of frozen items, by the schema they were encoded by. */
const texts = new WeakMap<Schema, WeakMap<object, string>>()

/**
 * As JSON. An item of a list that is frozen is encoded once and its text kept as long as the item lives: long lists
 * are made of rows of which few change (`views/guest-list.ts`).
 * @throws Error naming the place when the value is not what the schema says
 */
export function encodedText(schema: Schema, value: unknown): string {
  const { items } = schema
  if (schema.type !== 'array' || items === undefined || !Array.isArray(value))
    return JSON.stringify(encode(schema, value))
  const known = texts.get(items) ?? new WeakMap<object, string>()
  texts.set(items, known)
  const textOf = (item: unknown, at: number): string => {
    if (item === null || item === undefined) return 'null'
    const isLasting = typeof item === 'object' && Object.isFrozen(item)
    const kept = isLasting ? known.get(item) : undefined
    if (kept !== undefined) return kept
    const text = JSON.stringify(encoderOf(items)(item, `data[${at}]`))
    if (isLasting) known.set(item, text)
    return text
  }
  return `[${value.map(textOf).join(',')}]`
}

/**
 * @returns what `JSON.stringify` then writes; `null` for nothing
 * @throws Error naming the place when the value is not what the schema says
 */
export function encode(schema: Schema, value: unknown): unknown {
  return value === undefined || value === null ? null : encoderOf(schema)(value, 'data')
}

function encoderOf(schema: Schema): Encoder {
  const known = compiled.get(schema)
  if (known) return known
  const encoder = compile(schema)
  compiled.set(schema, encoder)
  return encoder
}

function compile(schema: Schema): Encoder {
  switch (schema.type) {
    case 'boolean':
      return encodeBoolean
    case 'integer':
      return (value, where) => Math.trunc(asNumber(value, where))
    case 'number':
      return asNumber
    case 'string':
      return encodeText
    case 'array':
      return encodeArray(schema.items)
    case 'object':
      return encodeObject(schema)
    case 'null':
      return () => null
    case 'any':
      return encodeFreely
    default:
      return schema.type satisfies never
  }
}

function encodeBoolean(value: unknown, where: string): number {
  if (value === true || value === 1 || value === '1') return 1
  if (value === false || value === 0 || value === '0' || value === '') return 0
  return wrong('a boolean', value, where)
}

function asNumber(value: unknown, where: string): number {
  const number = typeof value === 'boolean' || typeof value === 'bigint' ? Number(value) : value
  if (typeof number === 'number' && Number.isFinite(number)) return number
  if (typeof number === 'string' && number.trim() !== '' && Number.isFinite(Number(number))) return Number(number)
  return wrong('a number', value, where)
}

function encodeText(value: unknown, where: string): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'bigint') return String(value)
  if (typeof value === 'boolean') return value ? '1' : '0'
  return wrong('text', value, where)
}

function encodeArray(items: Schema | undefined): Encoder {
  return (value, where) => {
    if (!Array.isArray(value)) return wrong('a list', value, where)
    const encodeItem = items === undefined ? encodeFreely : encoderOf(items)
    return value.map((item, at) => (item === null || item === undefined ? null : encodeItem(item, `${where}[${at}]`)))
  }
}

function encodeObject(schema: Schema): Encoder {
  const properties: Properties = schema.properties ?? {}
  const passesOthers = schema.additionalProperties ?? schema.properties === undefined
  return (value, where) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return wrong('an object', value, where)
    const encoded: Record<string, unknown> = {}
    for (const [name, part] of Object.entries(value)) {
      // Absent beats null: clients look whether a key is there.
      if (part === undefined || part === null) continue
      const known = Object.hasOwn(properties, name) ? properties[name] : undefined
      if (known) encoded[name] = encoderOf(known)(part, `${where}.${name}`)
      else if (passesOthers) encoded[name] = encodeFreely(part)
    }
    return encoded
  }
}

/** Where no schema helps: as JSON would, except that a boolean is still 1 or 0. */
function encodeFreely(value: unknown): unknown {
  if (typeof value === 'boolean') return value ? 1 : 0
  if (typeof value === 'bigint') return Number(value)
  if (Array.isArray(value)) return value.map(encodeFreely)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).filter(([, part]) => part !== undefined && part !== null)
  return Object.fromEntries(entries.map(([name, part]) => [name, encodeFreely(part)]))
}

function wrong(expected: string, value: unknown, where: string): never {
  throw new Error(`the reply's ${where} is not ${expected} but ${typeof value}`)
}
