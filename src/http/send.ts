/** Puts a reply on the wire: headers every client expects, compression, and the end of the connection after an error. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { WireReply } from '#rest/reply.ts'
import { bounds } from './bounds.ts'
import { endGently, endOpen } from './linger.ts'
import { endHeader, faultTrailer } from './wire.ts'

const compress = promisify(gzip)

/** Some clients compare this. */
export const serverName = 'pve-api-daemon/3.0'

export interface SendOptions {
  readonly clock: Clock
  /** Close the connection afterwards, whatever the status. */
  readonly isLast?: boolean
  /** Keep it, whatever the status: the peer is the front or a program of this machine. */
  readonly isKept?: boolean
  /** Hears why a stream broke off on our side. */
  readonly onBroken?: (cause: unknown) => void
}

/** A reply whose body may be bytes already. */
export type Sendable = Omit<WireReply, 'body' | 'keep' | 'kind'> & {
  readonly body: string | Uint8Array
  /** The body is in gzip already, and the client takes that. */
  readonly isPacked?: boolean
}

/** A reply as it goes to this client: in bytes, packed where that is worth it and the client can read it. */
export async function readied(request: IncomingMessage, reply: Sendable): Promise<Sendable & { body: Uint8Array }> {
  // Bytes, not text: Node would send the headers in the encoding of a text body, and they are Latin-1.
  const body = typeof reply.body === 'string' ? Buffer.from(reply.body) : reply.body
  const isWorthIt = reply.isPacked !== true && body.length > bounds.gzipFromBytes && acceptsGzip(request)
  return isWorthIt ? { ...reply, body: await compress(body, { level: 4 }), isPacked: true } : { ...reply, body }
}

/** Flat pairs. */
export function replyHeaders(reply: Sendable & { readonly body: Uint8Array }, clock: Clock): string[] {
  const headers = [
    ...standardHeaders(clock),
    'Content-Type',
    reply.contentType,
    'Content-Length',
    String(reply.body.length),
    ...Object.entries(reply.headers ?? {}).flat(),
  ]
  if (reply.isPacked === true) headers.push('Content-Encoding', 'gzip', 'Vary', 'Accept-Encoding')
  return headers
}

export async function send(
  request: IncomingMessage,
  response: ServerResponse,
  reply: Sendable,
  { clock, isLast = false, isKept = false, onBroken = () => {} }: SendOptions,
): Promise<void> {
  if (reply.stream) return sendStream(request, response, reply, { ...reply.stream, clock, onBroken })
  const ready = await readied(request, reply)
  if (response.destroyed) return
  const headers = replyHeaders(ready, clock)
  if (!isKept && (reply.status >= 400 || isLast)) headers.push('Connection', 'close')
  response.writeHead(reply.status, reply.reason, headers)
  const end = isKept ? endOpen : endGently
  end(request, response, ready.body, clock)
}

type StreamFacts = NonNullable<Sendable['stream']> & Required<Pick<SendOptions, 'clock' | 'onBroken'>>

/**
 * Only as fast as it is taken. What breaks off here breaks off there, so that nobody takes a part for the whole; who reads to the
 * very end, and says so, is told why.
 */
async function sendStream(
  request: IncomingMessage,
  response: ServerResponse,
  { status, reason, contentType, headers = {} }: Sendable,
  { bytes, sizeBytes, clock, onBroken }: StreamFacts,
): Promise<void> {
  const isTold = request.headers[endHeader] !== undefined
  const pairs = [...standardHeaders(clock), 'Content-Type', contentType, ...Object.entries(headers).flat()]
  if (isTold) pairs.push('Trailer', faultTrailer)
  else if (sizeBytes !== undefined) pairs.push('Content-Length', String(sizeBytes))
  response.writeHead(status, reason, pairs)
  try {
    // Either side may go; the other goes with it.
    await pipeline(bytes, response, { end: false })
  } catch (cause) {
    if (response.destroyed) return
    onBroken(cause)
    if (!isTold) return void response.destroy()
    response.addTrailers({ [faultTrailer]: printTrailer(cause) })
  }
  response.end()
}

/** As headers have it: in ASCII. */
function printTrailer(cause: unknown): string {
  const fault = isFault(cause) ? cause : new Fault('failed', 'the node failed while it read; its log says how')
  const { kind, message, remedy } = fault
  return encodeURIComponent(JSON.stringify({ kind, message, remedy }))
}

export function acceptsGzip({ headers }: IncomingMessage): boolean {
  const accepted = headers['accept-encoding']
  return typeof accepted === 'string' && /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))/.test(accepted)
}

/** Flat pairs. */
export function standardHeaders(clock: Clock): string[] {
  const now = httpDate(clock)
  return ['Server', serverName, 'Date', now, 'Expires', now, 'Cache-Control', 'max-age=0', 'Pragma', 'no-cache']
}

let lastDate = { second: -1, text: '' }

function httpDate(clock: Clock): string {
  const second = Math.floor(clock.now() / 1000)
  if (lastDate.second !== second) lastDate = { second, text: new Date(second * 1000).toUTCString() }
  return lastDate.text
}

/** A whole response for a socket that HTTP no longer serves (upgrades). */
export function rawResponse(reply: WireReply, clock: Clock): Buffer {
  const pairs = [
    ...standardHeaders(clock),
    'Content-Type',
    reply.contentType,
    'Content-Length',
    String(Buffer.byteLength(reply.body)),
    'Connection',
    'close',
  ]
  const lines: string[] = [`HTTP/1.1 ${reply.status} ${reply.reason}`]
  for (let at = 0; at < pairs.length; at += 2) lines.push(`${pairs[at]}: ${pairs[at + 1]}`)
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), Buffer.from(reply.body)])
}
