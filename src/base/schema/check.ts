/**
 * Checks raw values (text from a form, or JSON) against schemas and says what is wrong, per field, in
 * the wording Proxmox VE clients know. Nothing here throws for bad input: errors are a value, so that
 * every wrong field is named at once.
 */
import { parsePropertyString } from './property-string.ts'
import { checkFormat } from './formats.ts'
import { matchesWhole } from './pattern.ts'
import type { Properties, Schema, StaticProperties } from './schema.ts'

export type Errors = Record<string, string>
export type Checked<P extends Properties> =
  | { readonly ok: true; readonly values: StaticProperties<P> }
  | { readonly ok: false; readonly errors: Errors }

export interface CheckOptions {
  /** Unknown parameters pass through as they came. */
  readonly allowsExtra?: boolean
}

const missingText = 'property is missing and it is not optional'
const unknownText = 'property is not defined in schema and the schema does not allow additional properties'

/** Checks a whole set of parameters. A default is *not* filled in: absent and default may differ in a config. */
export function checkProperties<P extends Properties>(
  properties: P,
  raw: Readonly<Record<string, unknown>>,
  options: CheckOptions = {},
): Checked<P> {
  const errors: Errors = {}
  const values: Record<string, unknown> = {}
  const isGiven = (name: string) => Object.hasOwn(raw, name) && raw[name] !== undefined && raw[name] !== null
  for (const [name, value] of Object.entries(raw)) {
    if (!isGiven(name)) continue
    const schema = Object.hasOwn(properties, name) ? properties[name] : undefined
    if (schema) setOwn(values, name, checkValue(schema, value, name, errors))
    else if (options.allowsExtra) setOwn(values, name, value)
    else note(errors, name, unknownText)
  }
  for (const [name, schema] of Object.entries(properties)) {
    if (!isGiven(name) && !schema.isOptional) note(errors, name, missingText)
    if (isGiven(name) && schema.requires !== undefined && !isGiven(schema.requires)) {
      note(errors, schema.requires, `missing property required by '${name}'`)
    }
  }
  if (Object.keys(errors).length > 0) return { ok: false, errors }
  return { ok: true, values: values as StaticProperties<P> }
}

/** Turns one raw value into its checked form; complaints go to `errors` under `name`. */
export function checkValue(schema: Schema, raw: unknown, name: string, errors: Errors): unknown {
  switch (schema.type) {
    case 'string':
      return checkText(schema, raw, name, errors)
    case 'integer':
    case 'number':
      return checkNumber(schema, raw, name, errors)
    case 'boolean':
      return checkBoolean(raw, name, errors)
    case 'array':
      return checkArray(schema, raw, name, errors)
    case 'object':
      return checkObject(schema, raw, name, errors)
    case 'null':
      return raw === null ? null : note(errors, name, typeText('null', raw))
    case 'any':
      return raw
    default:
      return schema.type satisfies never
  }
}

function note(errors: Errors, name: string, text: string): undefined {
  setOwn(errors, name, Object.hasOwn(errors, name) ? `${errors[name]}, ${text}` : text)
  return undefined
}

/** Names come from outside: `__proto__` and `constructor` are names like any other, never the object's own machinery. */
function setOwn<T>(target: Record<string, T>, name: string, value: T): void {
  Object.defineProperty(target, name, { value, enumerable: true, configurable: true, writable: true })
}

function typeText(type: string, raw: unknown): string {
  const got = typeof raw === 'object' ? (Array.isArray(raw) ? 'an array' : 'an object') : String(raw as string)
  return `type check ('${type}') failed - got '${got.slice(0, 100)}'`
}

function checkText(schema: Schema, raw: unknown, name: string, errors: Errors): string | undefined {
  const isList = typeof schema.format === 'string' && schema.format.endsWith('-list')
  const value = isList && isListOfTexts(raw) ? raw.join(',') : typeof raw === 'number' ? String(raw) : raw
  if (typeof value !== 'string') return note(errors, name, typeText('string', raw))
  const { minLength, maxLength } = schema
  if (maxLength !== undefined && value.length > maxLength)
    note(errors, name, `value may only be ${maxLength} characters long`)
  if (minLength !== undefined && value.length < minLength)
    note(errors, name, `value must be at least ${minLength} characters long`)
  if (schema.pattern && !matchesWhole(schema.pattern, value)) {
    note(errors, name, 'value does not match the regex pattern')
  }
  if (schema.enum && !schema.enum.includes(value)) {
    note(
      errors,
      name,
      `value '${value.slice(0, 100)}' does not have a value in the enumeration '${schema.enum.join(', ')}'`,
    )
  }
  const complaint = formatComplaint(schema, value)
  if (complaint !== undefined) note(errors, name, `invalid format - ${complaint}`)
  return value
}

function isListOfTexts(raw: unknown): raw is readonly (string | number)[] {
  return Array.isArray(raw) && raw.every((item) => typeof item === 'string' || typeof item === 'number')
}

function formatComplaint(schema: Schema, value: string): string | undefined {
  if (schema.format === undefined) return undefined
  if (typeof schema.format === 'string') return checkFormat(schema.format, value)
  const parsed = parsePropertyString(schema.format, value)
  return parsed.ok ? undefined : parsed.complaint
}

function checkNumber(schema: Schema, raw: unknown, name: string, errors: Errors): number | undefined {
  const shape = schema.type === 'integer' ? /^[+-]?\d+$/ : /^[+-]?(\d+\.?\d*|\.\d+)$/
  const value = typeof raw === 'number' ? raw : typeof raw === 'string' && shape.test(raw) ? Number(raw) : NaN
  const isGood = schema.type === 'integer' ? Number.isSafeInteger(value) : Number.isFinite(value)
  if (!isGood) return note(errors, name, typeText(schema.type, raw))
  const { minimum, maximum } = schema
  if (minimum !== undefined && value < minimum) note(errors, name, `value must have a minimum value of ${minimum}`)
  if (maximum !== undefined && value > maximum) note(errors, name, `value must have a maximum value of ${maximum}`)
  return value
}

/** Text must be `0` or `1`; words such as `yes` are accepted inside property strings only. */
function checkBoolean(raw: unknown, name: string, errors: Errors): boolean | undefined {
  if (raw === true || raw === 1 || raw === '1') return true
  if (raw === false || raw === 0 || raw === '0') return false
  return note(errors, name, typeText('boolean', raw))
}

function checkArray(schema: Schema, raw: unknown, name: string, errors: Errors): unknown[] {
  const list = Array.isArray(raw) ? raw : [raw]
  return schema.items === undefined ? list : list.map((item) => checkValue(schema.items as Schema, item, name, errors))
}

function checkObject(schema: Schema, raw: unknown, name: string, errors: Errors): unknown {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return note(errors, name, typeText('object', raw))
  const checked = checkProperties(schema.properties ?? {}, raw as Record<string, unknown>, {
    allowsExtra: schema.additionalProperties ?? false,
  })
  if (checked.ok) return checked.values
  for (const [key, text] of Object.entries(checked.errors)) note(errors, name, `${key}: ${text}`)
  return undefined
}
