/**
 * One HTTP request as the dispatcher sees it. Reads the body only when asked, which is after the caller is
 * known, and hands over uploads as the path of a file that only root can reach.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { rm } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { Fault, invalid } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { bodyTypeOf, collect, parseBody, parseForm, tooLarge } from '#rest/body.ts'
import type { ApiRequest, Target } from '#rest/dispatch.ts'
import type { Identity } from '#rest/endpoint.ts'
import type { ReplyFormat } from '#rest/reply.ts'
import type { RawParams } from '#rest/router.ts'
import type { EdgeContext } from './edge.ts'
import { identityFrom, noTicket } from './session.ts'
import { receiveUpload } from './upload.ts'
import { clientHeader, taskHeader, traceHeader, uploadHeader } from './wire.ts'

export interface EdgeFacts {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly context: EdgeContext
  readonly path: string
  readonly query: string
  readonly format: ReplyFormat
}

export class EdgeRequest implements ApiRequest {
  readonly method: string
  readonly path: string
  readonly query: string
  readonly format: ReplyFormat
  /** A multipart body on the local socket, where no front takes it in first. */
  readonly isLocalUpload: boolean
  readonly #facts: EdgeFacts
  #gone: AbortController | undefined
  /** The uploaded file this request brought, until a task owns it. */
  #file: string | undefined

  constructor(facts: EdgeFacts) {
    const { request, context } = facts
    this.#facts = facts
    this.method = request.method ?? ''
    this.path = facts.path
    this.query = facts.query
    this.format = facts.format
    this.isLocalUpload =
      context.origin.kind === 'local' &&
      this.method === 'POST' &&
      /^multipart\/form-data\b/i.test(request.headers['content-type'] ?? '')
  }

  get remoteAddress(): string {
    const { request, context } = this.#facts
    const told = context.origin.kind === 'front' ? request.headers[clientHeader] : undefined
    return typeof told === 'string' ? told : ''
  }

  get isFollowed(): boolean {
    return this.#facts.request.headers[traceHeader] !== undefined
  }

  /** Programs of this machine say `localhost`, which is nobody's name for it elsewhere. */
  get host(): string | undefined {
    const { request, context } = this.#facts
    const said = context.origin.kind === 'front' ? request.headers.host : undefined
    return /^([a-z0-9][a-z0-9.-]{0,252}|\[[0-9a-f:.]{2,45}\])(?::\d{1,5})?$/i
      .exec(said ?? '')?.[1]
      ?.replace(/^\[|\]$/g, '')
  }

  /** Made when first asked for: most handlers are done before anybody could go away. */
  get signal(): AbortSignal {
    if (this.#gone) return this.#gone.signal
    const gone = new AbortController()
    const { response } = this.#facts
    if (response.destroyed) gone.abort()
    else response.once('close', () => response.writableFinished || gone.abort())
    this.#gone = gone
    return gone.signal
  }

  /** GET and DELETE carry everything in the query. */
  unexpectedBody(): Fault | undefined {
    const { headers } = this.#facts.request
    const hasBody = Number(headers['content-length'] ?? 0) > 0 || headers['transfer-encoding'] !== undefined
    if (!hasBody || this.method === 'POST' || this.method === 'PUT') return undefined
    return new Fault('unimplemented', `Unexpected content for method '${this.method}'`)
  }

  readonly authenticate = async (target: Target): Promise<Identity> => {
    const { request, context } = this.#facts
    const { headers } = request
    const offered = await identityFrom(
      { headers, method: this.method, isUpload: target.isUpload },
      context.authenticator,
    )
    const who = offered ?? (await this.#localUser())
    if (!who) throw noTicket()
    return who
  }

  async #localUser(): Promise<Identity | undefined> {
    const { request, context } = this.#facts
    const uid = context.peers.get(request.socket)
    const task = request.headers[taskHeader]
    if (task !== undefined && context.origin.kind === 'local') {
      return uid === 0 && typeof task === 'string' ? context.origin.ofTask?.(task) : undefined
    }
    return context.origin.kind === 'local' && uid !== undefined ? context.origin.users(uid) : undefined
  }

  readonly body = async (target: Target): Promise<RawParams> => {
    if (this.method === 'GET' || this.method === 'DELETE') return {}
    if (target.isUpload && this.isLocalUpload) return this.#takeIn()
    const raw = await this.#params()
    return target.isUpload ? this.#withFile(raw) : raw
  }

  async #params(): Promise<RawParams> {
    const { request } = this.#facts
    const type = bodyTypeOf(request.headers['content-type'])
    if (type === 'multipart') {
      throw new Fault('unsupported-media', "Unsupported content type 'multipart/form-data'", {
        remedy: 'Only uploads are sent as multipart/form-data.',
      })
    }
    const maximumBytes = limits.http.requestBodyBytes
    if (Number(request.headers['content-length'] ?? 0) > maximumBytes) throw tooLarge(maximumBytes)
    try {
      // Leaving the loop early must not destroy the request: the reply has yet to be sent on its connection.
      return parseBody(await collect(request.iterator({ destroyOnReturn: false }), maximumBytes), type)
    } catch (cause) {
      if (cause instanceof Fault) throw cause
      throw new Fault('aborted', 'the request ended before its body did', { cause })
    }
  }

  /** Reads a multipart body here; the caller's right was judged before. */
  async #takeIn(): Promise<RawParams> {
    const { request, context } = this.#facts
    const upload = await receiveUpload(request, request.headers, {
      directory: context.spool.claimed,
      name: context.spool.newName(),
      query: parseForm(this.query),
    })
    this.#file = upload.path
    return { ...upload.fields, tmpfilename: upload.path }
  }

  /** The front has spooled the file, or root put it into the spool by hand. Nobody else may name a file. */
  async #withFile(raw: RawParams): Promise<RawParams> {
    const { request, context } = this.#facts
    const { origin, spool } = context
    const told = request.headers[uploadHeader]
    if (origin.kind === 'front' && typeof told === 'string') this.#file = await spool.claim(told)
    else if (
      origin.kind === 'local' &&
      context.peers.get(request.socket) === 0 &&
      typeof raw.tmpfilename === 'string'
    ) {
      if (dirname(raw.tmpfilename) !== spool.incoming) {
        throw invalid({ tmpfilename: `the file must be in '${spool.incoming}'` })
      }
      this.#file = await spool.claim(basename(raw.tmpfilename))
    } else {
      throw new Fault('unsupported-media', 'an upload is sent as multipart/form-data', {
        remedy: "Send the fields first and the file last, in the part 'filename'.",
      })
    }
    return { ...raw, tmpfilename: this.#file }
  }

  /** Removes the uploaded file of a call that failed. */
  async discard(): Promise<void> {
    if (this.#file !== undefined) await rm(this.#file, { force: true })
  }
}
