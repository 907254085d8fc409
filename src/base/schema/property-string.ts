/**
 * Property strings: `virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1`.
 *
 * One part may omit its key when the format names a default key. Aliases are mapped first; a duplicate
 * or unknown key is an error. Booleans accept 1/0/on/off/yes/no/true/false in any case.
 */
import { Fault } from '../fault.ts'
import { checkFormat } from './formats.ts'
import { matchesWhole } from './pattern.ts'
import type { PropertyFormat, Schema } from './schema.ts'

export type PropertyValue = string | number | boolean
export type PropertyValues = Record<string, PropertyValue>
export type ParsedProperties =
  | { readonly ok: true; readonly values: PropertyValues }
  | { readonly ok: false; readonly complaint: string }

class Complaint extends Error {}

export function parsePropertyString(format: PropertyFormat, text: string): ParsedProperties {
  try {
    const values: PropertyValues = {}
    for (const part of text.split(',')) if (part.trim() !== '') readPart(format, part.trim(), values)
    for (const [key, { schema, alias, keyAlias }] of Object.entries(format)) {
      const isRequired = !schema.isOptional && alias === undefined && keyAlias === undefined
      if (isRequired && values[key] === undefined)
        throw new Complaint(`${key}: property is missing and it is not optional`)
    }
    return { ok: true, values }
  } catch (error) {
    if (error instanceof Complaint) return { ok: false, complaint: error.message }
    throw error
  }
}

/** As `parsePropertyString`, for text that was checked before; throws a fault naming `field` if it was not. */
export function readPropertyString(format: PropertyFormat, text: string, field: string): PropertyValues {
  const parsed = parsePropertyString(format, text)
  if (parsed.ok) return parsed.values
  throw new Fault('invalid', 'Parameter verification failed.', {
    fields: { [field]: `invalid format - ${parsed.complaint}` },
  })
}

/** Writes values back; the default key comes first and without its name, the rest in the format's order. */
export function printPropertyString(
  format: PropertyFormat,
  values: Readonly<Record<string, PropertyValue | undefined>>,
): string {
  const parts: string[] = []
  const done = new Set<string>()
  const keyed = Object.entries(format).find(
    ([name, key]) => key.keyAlias !== undefined && values[key.keyAlias] === name,
  )
  if (keyed) {
    const [name, { keyAlias = '', alias = '' }] = keyed
    parts.push(values[alias] === undefined ? name : `${name}=${textOf(name, values[alias])}`)
    done.add(keyAlias).add(alias)
  }
  const names = Object.keys(format).filter((name) => !done.has(name) && format[name]?.alias === undefined)
  names.sort((a, b) => Number(format[b]?.isDefaultKey ?? false) - Number(format[a]?.isDefaultKey ?? false))
  for (const name of names) {
    const value = values[name]
    if (value === undefined) continue
    const text = textOf(name, value)
    const isBare = format[name]?.isDefaultKey && parts.length === 0 && canStandAlone(format, text)
    parts.push(isBare ? text : `${name}=${text}`)
  }
  return parts.join(',')
}

/** @throws Error for text that would be read back as something else: it must be refused before it is stored. */
function textOf(name: string, value: PropertyValue): string {
  if (typeof value === 'boolean') return value ? '1' : '0'
  const text = typeof value === 'number' ? decimal(value) : value
  if (text.includes(',') || text !== text.trim())
    throw new Error(`${name}: '${text}' cannot be written in a property string`)
  return text
}

/** Without an exponent, which property strings do not know. */
function decimal(value: number): string {
  const text = String(value)
  return text.includes('e') ? value.toFixed(20).replace(/\.?0+$/, '') : text
}

/** A bare value must not look like a key: neither `a=b`, nor the name of another key's value such as `virtio`. */
function canStandAlone(format: PropertyFormat, text: string): boolean {
  return text !== '' && !text.includes('=') && !(Object.hasOwn(format, text) && format[text]?.keyAlias !== undefined)
}

function readPart(format: PropertyFormat, part: string, values: PropertyValues): void {
  const equals = part.indexOf('=')
  const name = equals < 0 ? undefined : part.slice(0, equals)
  // A default value may itself contain '=', so a name counts only when the format knows it.
  if (name !== undefined && Object.hasOwn(format, name)) return set(format, name, part.slice(equals + 1), values)
  const bare = equals < 0 && Object.hasOwn(format, part) ? format[part] : undefined
  if (bare?.keyAlias !== undefined) return store(format, bare.keyAlias, part, values)
  const defaultKey = Object.keys(format).find((key) => format[key]?.isDefaultKey)
  if (defaultKey === undefined || (name !== undefined && /^\w[\w-]*$/.test(name))) {
    throw new Complaint(
      `${name ?? part}: property is not defined in schema and the schema does not allow additional properties`,
    )
  }
  return store(format, defaultKey, part, values)
}

function set(format: PropertyFormat, name: string, text: string, values: PropertyValues): void {
  const key = format[name]
  if (key?.keyAlias !== undefined) store(format, key.keyAlias, name, values)
  store(format, key?.alias ?? name, text, values)
}

function store(format: PropertyFormat, name: string, text: string, values: PropertyValues): void {
  if (values[name] !== undefined) throw new Complaint(`duplicate key in comma-separated list property: ${name}`)
  const schema = format[name]?.schema
  if (!schema) throw new Complaint(`${name}: property is not defined in schema`)
  values[name] = readValue(schema, name, text)
}

function readValue(schema: Schema, name: string, text: string): PropertyValue {
  switch (schema.type) {
    case 'boolean':
      if (/^(1|on|yes|true)$/i.test(text)) return true
      if (/^(0|off|no|false)$/i.test(text)) return false
      throw new Complaint(`${name}: type check ('boolean') failed - got '${text}'`)
    case 'integer':
    case 'number':
      return readNumber(schema, name, text)
    case 'string':
    case 'array':
    case 'object':
    case 'null':
    case 'any':
      return readText(schema, name, text)
    default:
      return schema.type satisfies never
  }
}

function readNumber(schema: Schema, name: string, text: string): number {
  const value = /^[+-]?\d+(\.\d+)?$/.test(text) ? Number(text) : NaN
  const isGood = schema.type === 'integer' ? Number.isSafeInteger(value) : Number.isFinite(value)
  if (!isGood) throw new Complaint(`${name}: type check ('${schema.type}') failed - got '${text}'`)
  if (schema.minimum !== undefined && value < schema.minimum)
    throw new Complaint(`${name}: value must have a minimum value of ${schema.minimum}`)
  if (schema.maximum !== undefined && value > schema.maximum)
    throw new Complaint(`${name}: value must have a maximum value of ${schema.maximum}`)
  return value
}

function readText(schema: Schema, name: string, text: string): string {
  const { enum: allowed, pattern, maxLength, minLength } = schema
  if (allowed && !allowed.includes(text))
    throw new Complaint(`${name}: value '${text}' does not have a value in the enumeration '${allowed.join(', ')}'`)
  if (pattern && !matchesWhole(pattern, text)) throw new Complaint(`${name}: value does not match the regex pattern`)
  if (maxLength !== undefined && text.length > maxLength)
    throw new Complaint(`${name}: value may only be ${maxLength} characters long`)
  if (minLength !== undefined && text.length < minLength)
    throw new Complaint(`${name}: value must be at least ${minLength} characters long`)
  if (typeof schema.format === 'string') {
    const complaint = checkFormat(schema.format, text)
    if (complaint !== undefined) throw new Complaint(`${name}: ${complaint}`)
  }
  return text
}
