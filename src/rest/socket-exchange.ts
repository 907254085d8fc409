/**
 * One HTTP request on a connection of its own to a unix socket, and its reply.
 *
 * The request asks the node to close afterwards, so the reply ends where the bytes end, and next to nothing of
 * HTTP is left to read: a status line, headers, and a length to hold the rest against. Node's own client does
 * the same and more, and loading and warming it takes 11 ms of the 45 a short command takes.
 */
import { connect, type Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { Fault } from '#base/fault.ts'
import type { TransportReply, TransportRequest } from './client.ts'

export interface SocketExchange {
  readonly socketPath: string
  /** Without a byte for this long, the other side counts as gone. */
  readonly timeoutMs: number
  /** The longest reply that is taken in. */
  readonly replyBytes: number
  /** For messages. */
  readonly peer: string
}

/** @throws Fault `invalid`, `timeout`, `too-large`, `unavailable`; whatever the socket or the body fails with */
export async function exchangeOnSocket(request: TransportRequest, facts: SocketExchange): Promise<TransportReply> {
  const { timeoutMs, peer, replyBytes } = facts
  const head = headOf(request)
  const { body, signal } = request
  signal?.throwIfAborted()
  const socket = connect(facts.socketPath)
  const abort = () => socket.destroy(new Error('interrupted'))
  signal?.addEventListener('abort', abort, { once: true })
  socket.setTimeout(timeoutMs, () =>
    socket.destroy(new Fault('timeout', `${peer} did not answer within ${timeoutMs / 1000} s`)),
  )
  // In one write: who answers the head alone and closes must not find us still sending.
  socket.write(Buffer.concat([Buffer.from(head, 'latin1'), Buffer.from(typeof body === 'string' ? body : '')]))
  if (typeof body === 'object') pour(body, socket)
  try {
    return await readReply(socket, { replyBytes, peer, isKept: typeof body === 'object' })
  } finally {
    signal?.removeEventListener('abort', abort)
    if (typeof body === 'object') body.destroy()
    socket.destroy()
  }
}

/** @throws Fault `invalid` where a line break would make another request of it */
function headOf({ method, target, headers, body }: TransportRequest): string {
  if (!/^[\x21-\x7e]+$/.test(target)) throw new Fault('invalid', `the path '${target}' is not percent-encoded`)
  // Who refuses an upload half-way and then closes would break off our sending, and with it his own reply.
  const connection = typeof body === 'object' ? 'keep-alive' : 'close'
  const lines = [`${method} ${target} HTTP/1.1`, 'Host: localhost', `Connection: ${connection}`]
  for (const [name, value] of Object.entries(headers)) {
    if (/[^\t\x20-\x7e\x80-\xff]/.test(value)) throw new Fault('invalid', `the header '${name}' holds a line break`)
    lines.push(`${name}: ${value}`)
  }
  return `${lines.join('\r\n')}\r\n\r\n`
}

function pour(body: Readable, socket: Socket): void {
  body.on('error', (cause) => socket.destroy(cause))
  body.pipe(socket, { end: false })
}

interface ReplyFacts extends Pick<SocketExchange, 'replyBytes' | 'peer'> {
  /** The connection does not end with the reply. */
  readonly isKept: boolean
}

async function readReply(socket: Socket, { replyBytes, peer, isKept }: ReplyFacts): Promise<TransportReply> {
  const parts: Buffer[] = []
  let sizeBytes = 0
  try {
    for await (const part of socket as AsyncIterable<Buffer>) {
      sizeBytes += part.length
      if (sizeBytes > replyBytes) throw new Fault('too-large', `the reply is larger than ${replyBytes} bytes`)
      parts.push(part)
      const whole = isKept ? parsed(Buffer.concat(parts)) : undefined
      if (whole && hasLength(whole)) return whole
    }
  } catch (cause) {
    // Who refuses an upload half-way closes while it is still being sent; what he said first counts.
    const reply = cause instanceof Fault ? undefined : parsed(Buffer.concat(parts))
    if (!reply) throw cause
    return reply
  }
  const reply = parsed(Buffer.concat(parts))
  if (reply) return reply
  // With a cause, as everything that befalls a connection has: who may ask again knows it by that.
  throw new Fault('unavailable', `${peer} hung up in the middle of its reply`, { cause: new Error('cut off') })
}

function hasLength({ headers }: TransportReply): boolean {
  return headers['content-length'] !== undefined
}

/** Nothing when it is not whole. */
function parsed(bytes: Buffer): TransportReply | undefined {
  const end = bytes.indexOf('\r\n\r\n')
  const [statusLine = '', ...lines] = bytes.toString('latin1', 0, Math.max(0, end)).split('\r\n')
  const [, status, reason = ''] = /^HTTP\/1\.1 (\d{3}) ?(.*)$/.exec(statusLine) ?? []
  if (status === undefined) return undefined
  const headers = Object.fromEntries(
    lines.map((line) => [line.split(':', 1)[0]?.toLowerCase() ?? '', line.slice(line.indexOf(':') + 1).trim()]),
  )
  const body = bytes.subarray(end + 4)
  const length = headers['content-length']
  const isWhole = length === undefined ? headers['transfer-encoding'] === undefined : body.length === Number(length)
  return isWhole ? { status: Number(status), reason, headers, body: body.toString('utf8') } : undefined
}
