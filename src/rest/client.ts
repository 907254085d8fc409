/**
 * The typed client: `api.call('GET /nodes/{node}/qemu', { node: 'lab' })`.
 *
 * Names, parameters and replies are types of the endpoint list, so a call that does not fit does not
 * compile; at run time nothing of the server is needed. Knows no network: a `Transport` carries one request
 * (`transport.ts` has two). An error reply becomes the fault it was on the other side.
 */
import type { Readable } from 'node:stream'
import { Fault, type FaultKind } from '#base/fault.ts'
import type { Properties, Schema, Static, StaticProperties } from '#base/schema/schema.ts'
import { isFaultKind, kindOfStatus } from './reply.ts'

export interface TransportRequest {
  readonly method: string
  /** Path and query. */
  readonly target: string
  readonly headers: Readonly<Record<string, string>>
  /** A stream is poured out once, and given up when the reply comes before its end. */
  readonly body?: string | Readable
  readonly signal?: AbortSignal | undefined
}

export interface TransportReply {
  readonly status: number
  readonly reason: string
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly body: string
}

export type Transport = (request: TransportRequest) => Promise<TransportReply>

/** What the types read of an endpoint. `method` and `path` must be literal types. */
export interface EndpointShape {
  readonly method: string
  readonly path: string
  readonly params: Properties
  readonly returns: Schema
}

type NameOf<E extends EndpointShape> = `${E['method']} ${E['path']}`
type Named<E extends EndpointShape, Name extends string> = E extends EndpointShape
  ? NameOf<E> extends Name
    ? E
    : never
  : never

/** Values as they arrive: a boolean is 1 or 0. */
export type Wire<T> = T extends boolean
  ? 0 | 1
  : T extends readonly (infer Item)[]
    ? Wire<Item>[]
    : T extends object
      ? { [K in keyof T]: Wire<T[K]> }
      : T

type ParamsOf<E extends EndpointShape> = StaticProperties<E['params']>
/** The second argument may be left out when every parameter is optional. */
type Arguments<P> =
  Record<never, never> extends P ? [params?: P, options?: CallOptions] : [params: P, options?: CallOptions]

export interface CallOptions {
  readonly signal?: AbortSignal
}

export interface ClientReply<T> {
  readonly data: T
  readonly total?: number
  readonly changes?: string
}

export interface ApiClient<E extends EndpointShape> {
  /** @returns `data` of the reply. @throws Fault of the kind the server named */
  readonly call: <Name extends NameOf<E>>(
    name: Name,
    ...rest: Arguments<ParamsOf<Named<E, Name>>>
  ) => Promise<Wire<Static<Named<E, Name>['returns']>>>
  /** As `call`, with what stands beside `data`. */
  readonly reply: <Name extends NameOf<E>>(
    name: Name,
    ...rest: Arguments<ParamsOf<Named<E, Name>>>
  ) => Promise<ClientReply<Wire<Static<Named<E, Name>['returns']>>>>
  /** A call nobody typed: raw path below `/api2/json`, raw parameters. */
  readonly raw: (
    method: string,
    path: string,
    params?: Readonly<Record<string, unknown>>,
    options?: CallOptions,
  ) => Promise<ClientReply<unknown>>
}

/** How the client proves who it is; nothing on the local socket. */
export type ClientCredentials =
  | { readonly kind: 'token'; readonly token: string } //  `user@realm!name=secret`
  | { readonly kind: 'ticket'; readonly ticket: string; readonly csrf: string }

export interface ClientOptions {
  /** Asked for every request, so that a ticket may be renewed meanwhile. */
  readonly credentials?: () => ClientCredentials | undefined
}

export function apiClient<E extends EndpointShape>(transport: Transport, options: ClientOptions = {}): ApiClient<E> {
  const raw: ApiClient<E>['raw'] = async (method, path, params = {}, { signal } = {}) =>
    readReply(
      await transport({
        ...requestOf(method, path, params),
        headers: { Accept: 'application/json', ...headersOf(method, options), ...bodyHeaders(method, params) },
        signal,
      }),
    )
  const named = (name: string, params: Readonly<Record<string, unknown>> = {}, callOptions: CallOptions = {}) => {
    const [method = '', template = ''] = name.split(' ', 2)
    const { path, others } = fillPath(template, params)
    return raw(method, path, others, callOptions)
  }
  // The list of endpoints exists here as a type alone; these casts are where it is taken at its word.
  return {
    call: (async (name: string, params?: Record<string, unknown>, callOptions?: CallOptions) =>
      (await named(name, params, callOptions)).data) as ApiClient<E>['call'],
    reply: named as ApiClient<E>['reply'],
    raw,
  }
}

/** Puts parameters into the path; a `{name*}` keeps its slashes. @throws Fault `invalid` when one is absent */
export function fillPath(
  template: string,
  params: Readonly<Record<string, unknown>>,
): { path: string; others: Record<string, unknown> } {
  const others = { ...params }
  const path = template.replace(/\{([\w-]+)(\*?)\}/g, (_, name: string, star: string) => {
    const value = params[name]
    delete others[name]
    if ((typeof value !== 'string' && typeof value !== 'number') || value === '') {
      throw new Fault('invalid', 'Parameter verification failed.', {
        fields: { [name]: 'property is missing and it is not optional' },
      })
    }
    const text = String(value)
    return star === '*' ? text.split('/').map(encodeURIComponent).join('/') : encodeURIComponent(text)
  })
  return { path, others }
}

function hasBody(method: string): boolean {
  return method === 'POST' || method === 'PUT'
}

function requestOf(method: string, path: string, params: Readonly<Record<string, unknown>>) {
  const target = `/api2/json${path}`
  if (hasBody(method)) return { method, target, body: JSON.stringify(params) }
  const query = queryOf(params)
  return { method, target: query === '' ? target : `${target}?${query}` }
}

function bodyHeaders(method: string, params: Readonly<Record<string, unknown>>): Record<string, string> {
  if (!hasBody(method)) return {}
  return { 'Content-Type': 'application/json', 'Content-Length': String(Buffer.byteLength(JSON.stringify(params))) }
}

function headersOf(method: string, { credentials }: ClientOptions): Record<string, string> {
  const proof = credentials?.()
  if (!proof) return {}
  if (proof.kind === 'token') return { Authorization: `PVEAPIToken=${proof.token}` }
  const cookie = { Cookie: `PVEAuthCookie=${encodeURIComponent(proof.ticket)}` }
  return method === 'GET' ? cookie : { ...cookie, CSRFPreventionToken: proof.csrf }
}

/** A list becomes a repeated key; absent values vanish. */
export function queryOf(params: Readonly<Record<string, unknown>>): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(params)) {
    for (const item of Array.isArray(value) ? (value as unknown[]) : [value]) {
      if (item === undefined || item === null) continue
      query.append(name, typeof item === 'boolean' ? (item ? '1' : '0') : String(item as string))
    }
  }
  return query.toString()
}

/** What `data` and its neighbours are, or the fault they tell of. @throws Fault of the kind the server named */
export function readReply({ status, reason, body }: TransportReply): ClientReply<unknown> {
  const parsed = parseObject(body)
  if (status >= 200 && status < 300 && parsed && Object.hasOwn(parsed, 'data')) {
    const { total, changes } = parsed
    return {
      data: parsed.data,
      ...(typeof total === 'number' ? { total } : {}),
      ...(typeof changes === 'string' ? { changes } : {}),
    }
  }
  throw faultOf(status, reason, parsed ?? {})
}

function faultOf(status: number, reason: string, body: Readonly<Record<string, unknown>>): Fault {
  if (status >= 200 && status < 300)
    return new Fault('failed', `the reply is not of this API (status ${status}, no data)`)
  const kind: FaultKind = isFaultKind(body.kind) ? body.kind : kindOfStatus(status)
  const message =
    typeof body.message === 'string' && body.message !== '' ? body.message.trimEnd() : reason || `status ${status}`
  const fields = asTexts(body.errors)
  return new Fault(kind, message, {
    ...(fields ? { fields } : {}),
    ...(typeof body.remedy === 'string' ? { remedy: body.remedy } : {}),
  })
}

function asTexts(value: unknown): Record<string, string> | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const entries = Object.entries(value).map(([name, text]) => [name, String(text as string)] as const)
  return entries.length > 0 ? Object.fromEntries(entries) : undefined
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined // Not JSON: the status and the reason say what there is to say.
  }
}
