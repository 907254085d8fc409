/**
 * Schemas as values: what a parameter or a reply may be, in words a machine can read.
 *
 * One value serves validation, both API descriptions, the CLI and the fuzz test, and its TypeScript
 * type follows from it (`Static`). The words are those of the PVE schema (`minimum`, `maxLength`,
 * `format` …), because that is what clients read back. Rejected: a general JSON-Schema library, which
 * knows neither property strings, indexed families, `-list` formats nor PVE's wording of errors.
 */
export type SchemaType = 'string' | 'integer' | 'number' | 'boolean' | 'array' | 'object' | 'null' | 'any'

/** Text about a value and the bounds that hold for it. `T` exists for the type checker alone. */
export interface Schema<out T = unknown> {
  readonly type: SchemaType
  readonly description?: string
  readonly isOptional?: boolean
  readonly default?: string | number | boolean
  readonly enum?: readonly string[]
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  /** Must match the whole text. */
  readonly pattern?: RegExp
  /** A name from `formats.ts`, or a property string described key by key. */
  readonly format?: string | PropertyFormat
  /** This parameter makes sense only together with that one. */
  readonly requires?: string
  readonly items?: Schema
  readonly properties?: Properties
  /** An object may carry keys nobody described. */
  readonly additionalProperties?: boolean
  /** Never shown in logs, task logs, errors or evidence. */
  readonly isSecret?: boolean
  readonly _static?: T
}

export type Properties = Readonly<Record<string, Schema>>

/** One key of a property string such as `virtio=BC:24:…,bridge=vmbr0`. */
export interface PropertyKey {
  readonly schema: Schema
  /** May be written without `key=`; one per format. */
  readonly isDefaultKey?: boolean
  /** This key is another spelling of that one. */
  readonly alias?: string
  /** This key's *name* is itself the value of that key: `virtio=MAC` means `model=virtio,macaddr=MAC`. */
  readonly keyAlias?: string
}
export type PropertyFormat = Readonly<Record<string, PropertyKey>>

export type Optional<S extends Schema> = S & { readonly isOptional: true }

/** The TypeScript type of what a schema accepts. */
export type Static<S extends Schema> = S extends Schema<infer T> ? T : never

type OptionalKeys<P extends Properties> = {
  [K in keyof P]: P[K] extends { readonly isOptional: true } ? K : never
}[keyof P]

/** The TypeScript type of a set of parameters; an indexed family appears as `` `scsi${number}` ``. */
export type StaticProperties<P extends Properties> = { [K in Exclude<keyof P, OptionalKeys<P>>]: Static<P[K]> } & {
  [K in OptionalKeys<P>]?: Static<P[K]> | undefined
}

type Rules<S> = Omit<S, 'type' | 'isOptional' | '_static'>
export type TextRules = Rules<
  Pick<Schema, 'description' | 'default' | 'minLength' | 'maxLength' | 'pattern' | 'format' | 'requires' | 'isSecret'>
>
export type NumberRules = Rules<Pick<Schema, 'description' | 'default' | 'minimum' | 'maximum' | 'requires'>>
export type CommonRules = Rules<Pick<Schema, 'description' | 'default' | 'requires'>>

export function string(rules: TextRules = {}): Schema<string> {
  return { type: 'string', ...rules }
}

export function enumOf<const V extends string>(values: readonly V[], rules: CommonRules = {}): Schema<V> {
  return { type: 'string', enum: values, ...rules }
}

export function integer(rules: NumberRules = {}): Schema<number> {
  return { type: 'integer', ...rules }
}

export function number(rules: NumberRules = {}): Schema<number> {
  return { type: 'number', ...rules }
}

export function boolean(rules: CommonRules = {}): Schema<boolean> {
  return { type: 'boolean', ...rules }
}

export function array<S extends Schema>(items: S, rules: CommonRules = {}): Schema<Static<S>[]> {
  return { type: 'array', items, ...rules }
}

export function object<P extends Properties>(
  properties: P,
  rules: CommonRules & Pick<Schema, 'additionalProperties'> = {},
): Schema<StaticProperties<P>> {
  return { type: 'object', properties, ...rules }
}

/** An object whose keys are data, such as a map from privilege to 1. */
export function record(rules: CommonRules = {}): Schema<Record<string, unknown>> {
  return { type: 'object', additionalProperties: true, ...rules }
}

/** A property string: stays text on the wire and in configs; `property-string.ts` reads it. */
export function propertyString(format: PropertyFormat, rules: Omit<TextRules, 'format'> = {}): Schema<string> {
  return { type: 'string', format, ...rules }
}

export const nothing: Schema<null> = { type: 'null' }
export const anything: Schema<unknown> = { type: 'any' }

export function optional<S extends Schema>(schema: S): Optional<S> {
  return { ...schema, isOptional: true }
}

/** The same schema with another description, bound or default. */
export function refine<S extends Schema>(schema: S, rules: Partial<Rules<Schema>>): S {
  return { ...schema, ...rules }
}

/**
 * A family `scsi0 … scsi30`, always optional. Spread it into a set of parameters.
 * @param count how many members the family has
 */
export function indexed<Name extends string, S extends Schema>(
  name: Name,
  count: number,
  schema: S,
): { readonly [K in `${Name}${number}`]: Optional<S> } {
  const family: Record<string, Optional<S>> = {}
  for (let index = 0; index < count; index += 1) family[`${name}${index}`] = optional(schema)
  return family as { readonly [K in `${Name}${number}`]: Optional<S> }
}
