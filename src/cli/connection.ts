/**
 * The wire to a node's local socket. Replies that are errors come back as the faults they were.
 *
 * The socket knows who calls by the kernel's word, so nothing secret is kept or sent here.
 */
import { copyFile, readdir } from 'node:fs/promises'
import { request } from 'node:http'
import { basename, join } from 'node:path'
import { Fault, type FaultKind } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'

export interface CallReply {
  readonly data: unknown
  readonly total?: number
}

export interface CallOptions {
  /** The parameter `filename` is a path on this machine, to be handed over through this directory of the node. */
  readonly uploadDir?: string | undefined
  readonly signal?: AbortSignal
}

export type Params = Readonly<Record<string, string | readonly string[]>>

export interface Connection {
  readonly call: (method: string, path: string, params?: Params, options?: CallOptions) => Promise<CallReply>
  readonly socketPath: string
}

/** @param runDir the node's directory of sockets */
export function connectionTo(runDir: string, noNode: (socketPath: string) => Fault): Connection {
  const socketPath = join(runDir, 'api.sock')
  return {
    socketPath,
    async call(method, path, params = {}, options = {}) {
      const sent = options.uploadDir === undefined ? params : await spooled(options.uploadDir, params)
      const { status, text } = await exchange(socketPath, method, path, sent, options.signal).catch(
        (cause: NodeJS.ErrnoException) => {
          if (['ENOENT', 'ECONNREFUSED', 'EACCES'].includes(cause.code ?? '')) throw noNode(socketPath)
          throw new Fault('unavailable', `the node hung up: ${cause.message}`, { cause })
        },
      )
      return readReply(status, text)
    },
  }
}

/** The one node that runs on this machine, else the lab. */
export async function instanceHere(parent: string): Promise<string> {
  const names = await readdir(parent).catch(() => [])
  const [only, ...others] = names
  return only !== undefined && others.length === 0 ? only : 'lab'
}

function exchange(
  socketPath: string,
  method: string,
  path: string,
  params: Params,
  signal?: AbortSignal,
): Promise<{ status: number; text: string }> {
  const form = new URLSearchParams(
    Object.entries(params).flatMap(([name, value]) => [value].flat().map((one): [string, string] => [name, one])),
  )
  const inQuery = method === 'GET' || method === 'DELETE'
  const query = inQuery && form.size > 0 ? `?${form.toString()}` : ''
  return new Promise((resolve, reject) => {
    const headers = inQuery ? {} : { 'content-type': 'application/x-www-form-urlencoded' }
    const call = request(
      { socketPath, method, path: `/api2/json${path}${query}`, headers, ...(signal ? { signal } : {}) },
      (reply) => {
        const parts: Buffer[] = []
        reply.on('data', (part: Buffer) => parts.push(part))
        reply.on('end', () => resolve({ status: reply.statusCode ?? 500, text: Buffer.concat(parts).toString('utf8') }))
        reply.on('error', reject)
      },
    )
    call.on('error', reject)
    call.end(inQuery ? undefined : form.toString())
  })
}

function readReply(status: number, text: string): CallReply {
  const body = parse(text)
  if (status < 400) return { data: body.data, ...(typeof body.total === 'number' ? { total: body.total } : {}) }
  const message = typeof body.message === 'string' ? body.message.trimEnd() : `the node answered ${status}`
  const kind = typeof body.kind === 'string' ? (body.kind as FaultKind) : 'failed'
  throw new Fault(kind, message, {
    ...(isTexts(body.errors) ? { fields: body.errors } : {}),
    ...(typeof body.remedy === 'string' ? { remedy: body.remedy } : {}),
  })
}

function parse(text: string): Record<string, unknown> {
  try {
    const body: unknown = JSON.parse(text)
    return typeof body === 'object' && body !== null ? { ...body } : {}
  } catch (cause) {
    throw new Fault('failed', 'the node answered something that is not JSON', { cause })
  }
}

function isTexts(value: unknown): value is Record<string, string> {
  return typeof value === 'object' && value !== null && Object.values(value).every((one) => typeof one === 'string')
}

/** Puts a copy of the file where the node takes uploads from; the node moves it on, or removes it. */
async function spooled(uploadDir: string, params: Params): Promise<Params> {
  const path = String(params.filename ?? '')
  const spool = join(uploadDir, `upload-${systemRandom.uuid()}`)
  await copyFile(path, spool).catch((cause: NodeJS.ErrnoException) => {
    const isAbsent = cause.code === 'ENOENT'
    throw new Fault(isAbsent ? 'missing' : 'failed', isAbsent ? `file '${path}' does not exist` : cause.message, {
      cause,
    })
  })
  return { ...params, filename: basename(path), tmpfilename: spool }
}
