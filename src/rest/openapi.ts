/**
 * The API as OpenAPI 3.1. Truthful about the wire: a boolean is sent back as 1 or 0, every reply is an
 * object with `data`, errors share one shape, and what OpenAPI cannot say (rights, property strings) stands
 * in the descriptions.
 */
import type { Properties, Schema } from '#base/schema/schema.ts'
import type { Endpoint, Permission } from './endpoint.ts'

type Json = Readonly<Record<string, unknown>>

export interface OpenApiFacts {
  readonly title: string
  readonly version: string
}

export function openApi<Call>(endpoints: readonly Endpoint<Call>[], { title, version }: OpenApiFacts): Json {
  const paths: Record<string, Record<string, Json>> = {}
  for (const endpoint of endpoints) {
    const item = (paths[endpoint.path.replace('*}', '}')] ??= {})
    item[endpoint.method.toLowerCase()] = operationOf(endpoint)
  }
  return {
    openapi: '3.1.0',
    info: { title, version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    servers: [{ url: '/api2/json' }],
    paths,
    components: { schemas: { Error: errorSchema }, securitySchemes },
  }
}

const securitySchemes: Json = {
  ticket: { type: 'apiKey', in: 'cookie', name: 'PVEAuthCookie', description: 'From POST /access/ticket.' },
  csrf: {
    type: 'apiKey',
    in: 'header',
    name: 'CSRFPreventionToken',
    description: 'Beside the ticket for every method but GET.',
  },
  token: { type: 'apiKey', in: 'header', name: 'Authorization', description: 'PVEAPIToken=user@realm!name=secret' },
}

const errorSchema: Json = {
  type: 'object',
  required: ['data', 'message'],
  properties: {
    data: { type: 'null' },
    message: { type: 'string' },
    errors: {
      type: 'object',
      description: 'Wrong parameters and the rule each broke.',
      additionalProperties: { type: 'string' },
    },
    kind: { type: 'string', description: 'Kind of the fault, finer than the status.' },
    remedy: { type: 'string', description: 'What to do next.' },
  },
}

function operationOf<Call>(endpoint: Endpoint<Call>): Json {
  const inPath = new Set([...endpoint.path.matchAll(/\{([\w-]+)\*?\}/g)].map(([, name]) => name))
  const others = Object.fromEntries(Object.entries(endpoint.params).filter(([name]) => !inPath.has(name)))
  const hasBody = endpoint.method === 'POST' || endpoint.method === 'PUT'
  const parameters = [
    ...Object.entries(endpoint.params)
      .filter(([name]) => inPath.has(name))
      .map(([name, schema]) => parameterOf('path', name, schema)),
    ...(hasBody ? [] : Object.entries(others).map(([name, schema]) => parameterOf('query', name, schema))),
  ]
  return {
    operationId: operationIdOf(endpoint),
    summary: endpoint.description,
    description: rightsOf(endpoint),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(hasBody && Object.keys(others).length > 0 ? { requestBody: bodyOf(endpoint, others) } : {}),
    responses: responsesOf(endpoint),
    security: securityOf(endpoint),
  }
}

function operationIdOf<Call>({ method, path }: Endpoint<Call>): string {
  const words = path.split('/').filter(Boolean)
  return [method.toLowerCase(), ...words.map((word) => word.replace(/^\{([\w-]+)\*?\}$/, 'by-$1'))].join('-')
}

function parameterOf(where: 'path' | 'query', name: string, schema: Schema): Json {
  return {
    name,
    in: where,
    required: where === 'path' || !schema.isOptional,
    ...(schema.description === undefined ? {} : { description: schema.description }),
    schema: requestSchema(schema),
    ...(schema.type === 'array' ? { style: 'form', explode: true } : {}),
  }
}

function bodyOf<Call>({ isUpload, allowsExtra }: Endpoint<Call>, params: Properties): Json {
  const required = Object.keys(params).filter((name) => !params[name]?.isOptional)
  const schema = {
    type: 'object',
    properties: Object.fromEntries(Object.entries(params).map(([name, part]) => [name, requestSchema(part)])),
    ...(required.length > 0 ? { required } : {}),
    additionalProperties: allowsExtra ?? false,
  }
  const content = isUpload
    ? { 'multipart/form-data': { schema } }
    : { 'application/json': { schema }, 'application/x-www-form-urlencoded': { schema } }
  return { required: required.length > 0, content }
}

function responsesOf<Call>({ permission, returns }: Endpoint<Call>): Json {
  const refused = (description: string) => ({
    description,
    content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
  })
  const data = replySchema(returns)
  const envelope = {
    type: 'object',
    required: ['data'],
    properties: { data, total: { type: 'integer' }, changes: { type: 'string' } },
  }
  return {
    200: { description: 'Done.', content: { 'application/json': { schema: envelope } } },
    400: refused('A parameter broke its rule; `errors` names each.'),
    401: refused('Not logged in, or the login failed.'),
    ...(permission.kind === 'world' ? {} : { 403: refused('Logged in, without the right.') }),
    500: refused('It failed; `message` says why.'),
  }
}

function securityOf<Call>({ method, permission, refusesTokens, isUpload }: Endpoint<Call>): readonly Json[] {
  if (permission.kind === 'world') return []
  const ticket = method === 'GET' || isUpload ? { ticket: [] } : { ticket: [], csrf: [] }
  return refusesTokens || permission.kind === 'root' ? [ticket] : [ticket, { token: [] }]
}

function rightsOf<Call>({ permission, alsoNeeds }: Endpoint<Call>): string {
  const needs = `Needs ${inWords(permission)}.`
  return alsoNeeds ? `${needs} Also needs ${alsoNeeds.says.replace(/\.$/, '')}.` : needs
}

function inWords(permission: Permission): string {
  switch (permission.kind) {
    case 'world':
      return 'no login'
    case 'anyone':
      return 'a login; what the caller may not see is left out'
    case 'root':
      return 'root@pam in person'
    case 'check':
      return `${permission.privileges.join(permission.needs === 'any' ? ' or ' : ' and ')} on ${permission.path}`
    case 'self':
      return `to be the user named by \`${permission.param}\``
    case 'modify':
      return `the right to change permissions on ${permission.path}`
    case 'all':
      return permission.of.map(inWords).join(', and ')
    case 'any':
      return permission.of.map(inWords).join(', or ')
    default:
      return permission satisfies never
  }
}

function textRules(schema: Schema): Json {
  const { minLength, maxLength, pattern, enum: values, format } = schema
  return {
    ...(values ? { enum: values } : {}),
    ...(minLength === undefined ? {} : { minLength }),
    ...(maxLength === undefined ? {} : { maxLength }),
    ...(pattern ? { pattern: `^(?:${pattern.source})$` } : {}),
    ...(typeof format === 'string' ? { format } : {}),
    ...(typeof format === 'object' ? { 'x-property-string': Object.keys(format) } : {}),
  }
}

function commonOf({ description, default: preset }: Schema): Json {
  return {
    ...(description === undefined ? {} : { description }),
    ...(preset === undefined ? {} : { default: preset }),
  }
}

/** What may be sent. */
function requestSchema(schema: Schema): Json {
  const { type, minimum, maximum } = schema
  switch (type) {
    case 'boolean':
      return { ...commonOf(schema), enum: [0, 1, true, false] }
    case 'integer':
    case 'number':
      return {
        ...commonOf(schema),
        type,
        ...(minimum === undefined ? {} : { minimum }),
        ...(maximum === undefined ? {} : { maximum }),
      }
    case 'string':
      return { ...commonOf(schema), type, ...textRules(schema) }
    case 'array':
      return { ...commonOf(schema), type, ...(schema.items ? { items: requestSchema(schema.items) } : {}) }
    case 'object':
      return objectSchema(schema, requestSchema)
    case 'null':
      return { type }
    case 'any':
      return commonOf(schema)
    default:
      return type satisfies never
  }
}

/** What is sent back; bounds are promises about requests and are left out here. */
function replySchema(schema: Schema): Json {
  switch (schema.type) {
    case 'boolean':
      return { ...commonOf(schema), type: 'integer', enum: [0, 1] }
    case 'string':
      return { ...commonOf(schema), type: 'string', ...(schema.enum ? { enum: schema.enum } : {}) }
    case 'array':
      return { ...commonOf(schema), type: 'array', ...(schema.items ? { items: replySchema(schema.items) } : {}) }
    case 'object':
      return objectSchema(schema, replySchema)
    case 'integer':
    case 'number':
    case 'null':
      return { ...commonOf(schema), type: schema.type }
    case 'any':
      return commonOf(schema)
    default:
      return schema.type satisfies never
  }
}

function objectSchema(schema: Schema, part: (schema: Schema) => Json): Json {
  const properties = schema.properties ?? {}
  const required = Object.keys(properties).filter((name) => !properties[name]?.isOptional)
  return {
    ...commonOf(schema),
    type: 'object',
    properties: Object.fromEntries(Object.entries(properties).map(([name, value]) => [name, part(value)])),
    ...(required.length > 0 ? { required } : {}),
    additionalProperties: schema.additionalProperties ?? schema.properties === undefined,
  }
}
