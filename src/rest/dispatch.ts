/**
 * The way of a request: session → router → permission → check → alsoNeeds → handle → reply.
 *
 * Each stage refuses with its own fault and nothing behind it runs. A fault is an answer; anything else
 * that is thrown is a bug and becomes a 500 whose text holds a reference, under which the log has the rest.
 * Knows neither HTTP nor the services: the edge hands in how to authenticate and how to read the body,
 * the composition root how to judge and what a handler's call is.
 */
import { type Clock, systemClock } from '#base/clock.ts'
import { asOne, Fault, invalid } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { checkProperties } from '#base/schema/check.ts'
import type { Properties } from '#base/schema/schema.ts'
import { followed, serverTiming } from '#base/trace.ts'
import { parseForm } from './body.ts'
import { encodedText } from './encode.ts'
import { Download, type Endpoint, type Identity, type Judge, type Permission, Reply, Streamed } from './endpoint.ts'
import { demand, paramsOf, refusedToken, type Values } from './permission.ts'
import {
  dataReply,
  downloadReply,
  faultReply,
  type Keep,
  type ReplyFormat,
  streamedReply,
  type WireReply,
} from './reply.ts'
import { createRouter, type Match, mergeParams, type RawParams } from './router.ts'

/** What the edge knows of an endpoint before the call runs. */
export interface Target {
  readonly isUpload: boolean
  readonly isStreamed?: boolean
}

export interface ApiRequest {
  readonly method: string
  /** Below `/api2/<format>`, still percent-encoded. */
  readonly path: string
  /** As sent, without `?`. */
  readonly query: string
  readonly format: ReplyFormat
  /** Proves who calls. @throws Fault `unauthenticated` */
  readonly authenticate: (target: Target) => Promise<Identity>
  /** Reads the body; not called before the caller is known. */
  readonly body: (target: Target) => Promise<RawParams>
  /** Fires when the client goes away. */
  readonly signal: AbortSignal
  /** Address of the client; empty on the local socket. */
  readonly remoteAddress: string
  /** Name or address the client reaches this node by, without the port; absent where that is not known. */
  readonly host?: string | undefined
  /** Asks how long each part of the node had it. */
  readonly isFollowed?: boolean
}

/** What `makeCall` builds a handler's second argument from. */
export interface CallFacts {
  /** Nobody where the endpoint is open to the world. */
  readonly who: Identity | undefined
  readonly signal: AbortSignal
  readonly remoteAddress: string
  readonly host?: string | undefined
  readonly method: string
  readonly path: string
  /** Another call by the same caller, judged as if it had come from outside. Never rejects. */
  readonly again: (call: FurtherCall) => Promise<WireReply>
}

export interface FurtherCall {
  readonly method: string
  readonly path: string
  readonly params: RawParams
}

/** A call and how it ended, for whoever keeps account of calls. */
export interface Answered {
  readonly method: string
  /** As sent, without query. */
  readonly path: string
  /** `/nodes/{node}/qemu`; absent when there is no such endpoint. */
  readonly endpoint: string | undefined
  readonly status: number
  /** Absent when nobody was proven. */
  readonly who: Identity | undefined
  readonly remoteAddress: string
  /** Given again so often by whoever kept the reply. */
  readonly times?: number
}

export interface DispatchOptions<Call> {
  readonly endpoints: readonly Endpoint<Call>[]
  readonly judge: Judge
  readonly makeCall: (facts: CallFacts) => Call
  /** Name of this node: a call meant for another one is handed to `forward`. */
  readonly node: string
  readonly log: Log
  readonly random: Random
  /** Executes a call on another node; absent on a single host. */
  readonly forward?: (node: string, request: ApiRequest) => Promise<WireReply>
  /** Of the store; absent where no reply is ever kept. */
  readonly mark?: () => string
  readonly clock?: Clock
  /** Told when a call begins; what it returns is told how it ended. */
  readonly observe?: () => (answered: Answered) => void
}

export interface Dispatcher {
  /** Never rejects. */
  readonly handle: (request: ApiRequest) => Promise<WireReply>
  /**
   * Only the question whether the caller may upload there, asked before the bytes are taken in.
   * Judged over path and query; never rejects.
   */
  readonly mayUpload: (request: ApiRequest) => Promise<WireReply>
  /** Whether its reply is bytes as they come, which not every way carries. */
  readonly isStreamed: (method: string, path: string) => boolean
}

/** An endpoint with what can be worked out once. */
interface Prepared<Call> {
  readonly method: string
  readonly path: string
  readonly endpoint: Endpoint<Call>
  readonly target: Target
  /** The parameters its permission is judged over. */
  readonly judged: Properties
}

export function createDispatcher<Call>(options: DispatchOptions<Call>): Dispatcher {
  const router = createRouter(options.endpoints.map((endpoint) => prepare(endpoint)))
  const guarded = (
    request: ApiRequest,
    act: (match: Match<Prepared<Call>>, who: Identity | undefined) => Promise<WireReply>,
  ) => (request.isFollowed === true ? follow : admit)(router.find, request, options, act)
  const handle = (request: ApiRequest): Promise<WireReply> =>
    guarded(request, (match, who) => {
      const again = (call: FurtherCall) => handle(furtherRequest(call, who, request))
      return perform(match, { who, request, again }, options)
    })
  return {
    handle,
    isStreamed: (method, path) => router.find(method, path)?.endpoint.target.isStreamed === true,
    mayUpload: (request) =>
      guarded(request, async ({ endpoint, params }, who) => {
        if (!endpoint.target.isUpload) throw new Fault('unsupported-media', `'${request.path}' takes no upload`)
        await demandRights(endpoint, rawOf(params, request.query, {}, options.node), who, options.judge)
        return dataReply(request.format, 'null')
      }),
  }
}

function furtherRequest(
  { method, path, params }: FurtherCall,
  who: Identity | undefined,
  { signal, remoteAddress, host }: ApiRequest,
): ApiRequest {
  return {
    method,
    path,
    query: '',
    format: 'json',
    signal,
    remoteAddress,
    host,
    async authenticate() {
      if (!who) throw new Fault('unauthenticated', 'No ticket')
      return who
    },
    async body({ isUpload, isStreamed }) {
      if (isStreamed === true)
        throw new Fault('unsupported-media', `'${path}' answers with bytes, which no other call can carry`)
      // Only the edge may say which file an upload brought.
      if (isUpload) throw new Fault('unsupported-media', `'${path}' takes an upload, which no other call can carry`)
      return params
    },
  }
}

function prepare<Call>(endpoint: Endpoint<Call>): Prepared<Call> {
  const judged: Record<string, Properties[string]> = {}
  for (const name of paramsOf(endpoint.permission)) {
    const schema = endpoint.params[name]
    if (!schema)
      throw new Error(`${endpoint.method} ${endpoint.path}: its permission names '${name}', which is no parameter`)
    judged[name] = schema
  }
  const target = { isUpload: endpoint.isUpload ?? false, isStreamed: endpoint.isStreamed ?? false }
  return { method: endpoint.method, path: endpoint.path, endpoint, target, judged }
}

/** Session and router: a stranger learns nothing, not even which paths exist. */
async function admit<Call>(
  find: (method: string, path: string) => Match<Prepared<Call>> | undefined,
  request: ApiRequest,
  options: DispatchOptions<Call>,
  act: (match: Match<Prepared<Call>>, who: Identity | undefined) => Promise<WireReply>,
): Promise<WireReply> {
  let format: ReplyFormat = 'json'
  const observed = options.observe?.()
  let match: Match<Prepared<Call>> | undefined
  let who: Identity | undefined
  const answered = (reply: WireReply): Answered => {
    const { method, path, remoteAddress } = request
    return { method, path, endpoint: match?.endpoint.path, status: reply.status, who, remoteAddress }
  }
  const account = (reply: WireReply): WireReply => {
    observed?.(answered(reply))
    return reply
  }
  try {
    match = find(request.method, request.path)
    // Before anything is read: what changes from here on is not in the reply for sure.
    const keep = match?.endpoint.endpoint.isKept === true ? keepFrom(options) : undefined
    const isOpen = match?.endpoint.endpoint.permission.kind === 'world'
    who = isOpen ? undefined : await request.authenticate(match?.endpoint.target ?? { isUpload: false })
    format = request.format
    if (!match) throw notImplemented(request.method, request.path)
    const reply = account(await act(match, who))
    if (keep === undefined || who === undefined || reply.kind !== undefined) return reply
    const again = answered(reply)
    const given = (times: number, remoteAddress: string) => options.observe?.()({ ...again, remoteAddress, times })
    return { ...reply, keep: { ...keep, given } }
  } catch (error) {
    return account(faultReply(format, asFault(error, request, options)))
  }
}

/** Tells how long each part had it, where the caller may know how the node is. */
async function follow<Call>(...[find, request, options, act]: Parameters<typeof admit<Call>>): Promise<WireReply> {
  let caller: Identity | undefined
  const { result, way } = await followed(() =>
    admit(find, request, options, (match, who) => {
      caller = who
      return act(match, who)
    }),
  )
  const { judge } = options
  const mayKnow = caller && (judge.isRoot(caller) || (await judge.privilegesOn(caller, '/')).has('Sys.Audit'))
  return mayKnow === true ? { ...result, headers: { ...result.headers, 'Server-Timing': serverTiming(way) } } : result
}

/** Until the running second ends: lists may be so old, and whatever ends by time (a ticket, a user) ends with a second. */
function keepFrom<Call>({ mark, clock = systemClock }: DispatchOptions<Call>): Omit<Keep, 'given'> | undefined {
  return mark && { mark: mark(), until: (Math.floor(clock.now() / 1000) + 1) * 1000 }
}

export function notImplemented(method: string, path: string): Fault {
  return new Fault('unimplemented', `Method '${method} ${path}' not implemented`)
}

async function perform<Call>(
  { endpoint: prepared, params }: Match<Prepared<Call>>,
  { who, request, again }: { readonly request: ApiRequest } & Pick<CallFacts, 'who' | 'again'>,
  options: DispatchOptions<Call>,
): Promise<WireReply> {
  const { endpoint, target } = prepared
  // Bytes of a file are taken in only from who may bring them.
  if (target.isUpload) await demandRights(prepared, rawOf(params, request.query, {}, options.node), who, options.judge)
  const raw = rawOf(params, request.query, await request.body(target), options.node)
  await demandRights(prepared, raw, who, options.judge)
  const elsewhere = otherNode(endpoint, raw, options.node)
  if (elsewhere !== undefined) {
    if (!options.forward) throw new Fault('missing', `node '${elsewhere}' does not exist`)
    return options.forward(elsewhere, request)
  }
  const values = checked(endpoint, raw)
  await demandFurther(endpoint, values, who, options.judge)
  const { signal, remoteAddress, host, method, path } = request
  const call = options.makeCall({ who, signal, remoteAddress, host, method, path, again })
  return made(endpoint, values, call, request)
}

async function made<Call>(
  endpoint: Endpoint<Call>,
  values: Values,
  call: Call,
  { format, signal }: Pick<ApiRequest, 'format' | 'signal'>,
): Promise<WireReply> {
  // The values are what `params` describes; the erased type of `Endpoint` cannot say so.
  const answer: unknown = await endpoint.handle(values as never, call)
  if (answer instanceof Streamed) return streamedReply(answer, signal)
  if (answer instanceof Download) return downloadReply(answer.fileName, answer.text)
  if (answer instanceof Reply) return dataReply(format, encodedText(endpoint.returns, answer.data), answer.beside)
  return dataReply(format, encodedText(endpoint.returns, answer))
}

async function demandRights<Call>(
  { endpoint, judged }: Prepared<Call>,
  raw: RawParams,
  who: Identity | undefined,
  judge: Judge,
): Promise<void> {
  if (who === undefined) return
  if (who.token !== undefined && endpoint.refusesTokens) throw refusedToken()
  const given = Object.fromEntries(
    Object.keys(judged).flatMap((name) => (Object.hasOwn(raw, name) ? [[name, raw[name]]] : [])),
  )
  const sound = checkProperties(judged, given)
  // Without these nothing can be judged; the whole check then names every other mistake as well.
  if (!sound.ok) {
    const whole = checkProperties(endpoint.params, raw, { allowsExtra: endpoint.allowsExtra ?? false })
    throw invalid(whole.ok ? sound.errors : whole.errors)
  }
  await demand(endpoint.permission, sound.values, who, judge)
}

/**
 * One set of parameters. The node may be called `localhost`; its own name is put in before rights are judged,
 * or an ACL on `/nodes/<name>` could be walked around.
 */
function rawOf(path: Match<unknown>['params'], query: string, body: RawParams, here: string): RawParams {
  const raw = mergeParams(path, parseForm(query), body)
  return raw.node === 'localhost' ? { ...raw, node: here } : raw
}

/** The node that must execute the call, unless that is this one. */
function otherNode<Call>(endpoint: Endpoint<Call>, raw: RawParams, here: string): string | undefined {
  const { proxyTo } = endpoint
  const node = proxyTo === undefined ? undefined : raw[proxyTo]
  const schema = proxyTo === undefined ? undefined : endpoint.params[proxyTo]
  if (typeof node !== 'string' || node === here || !schema) return undefined
  return checkProperties({ node: schema }, { node }).ok ? node : undefined
}

function checked<Call>(endpoint: Endpoint<Call>, raw: RawParams): Values {
  const result = checkProperties(endpoint.params, raw, { allowsExtra: endpoint.allowsExtra ?? false })
  if (!result.ok) throw invalid(result.errors)
  return result.values
}

async function demandFurther<Call>(
  endpoint: Endpoint<Call>,
  values: Values,
  who: Identity | undefined,
  judge: Judge,
): Promise<void> {
  if (!endpoint.alsoNeeds || who === undefined) return
  const permissions: readonly Permission[] = endpoint.alsoNeeds.of(values as never)
  for (const permission of permissions) await demand(permission, values, who, judge)
}

/** A fault stays one; anything else is our mistake and gets a reference that is in the log. */
function asFault<Call>(thrown: unknown, request: ApiRequest, { log, random }: DispatchOptions<Call>): Fault {
  const { method, path } = request
  const error = asOne(thrown)
  if (error instanceof Fault) {
    if (error.cause !== undefined)
      log.warn('request failed', { method, path, fault: error.message, cause: error.cause })
    return error
  }
  if (request.signal.aborted) return new Fault('aborted', 'the client went away', { cause: error })
  const reference = random.uuid().slice(0, 8)
  log.error('bug in a request', { reference, method, path, error })
  return new Fault('failed', `internal error, reference ${reference}`, {
    cause: error,
    remedy: `Look for ${reference} in the log of the daemon and report it: this is a bug.`,
  })
}
