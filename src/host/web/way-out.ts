/**
 * The way a sealed program has to the web: a proxy behind a unix socket, which takes `CONNECT host:port`, resolves the
 * name, judges every address it has (`reach.ts`), and connects to those. It ends connections that are silent, and all
 * of them when too much has come.
 */
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Reach } from './reach.ts'
import { judgedAddresses } from './web.ts'

// By name: an ordinary import reads every export, and reading one of them loads undici.
const { createServer } = process.getBuiltinModule('node:http')

export interface WayOutOptions {
  readonly reach: Reach
  /** Most bytes that may come, over all connections. */
  readonly mostBytes: number
  readonly idleMs: number
  /** Told now and then how much has come; may throw a fault, which ends everything. */
  readonly onBytes?: ((received: number) => void | Promise<void>) | undefined
}

export interface WayOut extends AsyncDisposable {
  /** Why somebody was not connected or cut off: the first reason. */
  readonly refused: () => Fault | undefined
  /** Fires when everything is to end, with the reason. */
  readonly ended: AbortSignal
}

const mostConnections = 32
const tellEveryBytes = 8 * 2 ** 20

export async function openWayOut(socketPath: string, options: WayOutOptions): Promise<WayOut> {
  const ending = new AbortController()
  const sockets = new Set<Duplex>()
  let refused: Fault | undefined
  let [received, toldAt] = [0, 0]
  const end = (fault: Fault) => {
    refused ??= fault
    ending.abort(fault)
    for (const socket of sockets) socket.destroy()
  }
  const count = (bytes: number) => {
    received += bytes
    if (received > options.mostBytes) end(new Fault('too-large', `more than ${options.mostBytes} bytes came`))
    if (received - toldAt < tellEveryBytes) return
    toldAt = received
    void (async () => options.onBytes?.(received))().catch((cause: unknown) =>
      end(isFault(cause) ? cause : new Fault('failed', messageOf(cause), { cause })),
    )
  }
  const server = createServer((_, reply) => void reply.writeHead(403).end())
  server.maxConnections = mostConnections
  server.on('connect', (request: IncomingMessage, client: Duplex, head: Buffer) => {
    sockets.add(client)
    client.on('close', () => sockets.delete(client))
    client.on('error', () => client.destroy())
    carry(request.url ?? '', client, head, { ...options, count }).catch((cause: unknown) => {
      refused ??= isFault(cause) ? cause : new Fault('unavailable', messageOf(cause), { cause })
      client.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    })
  })
  server.listen(socketPath)
  await once(server, 'listening')
  return {
    refused: () => refused,
    ended: ending.signal,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

interface Carrying extends Pick<WayOutOptions, 'reach' | 'idleMs'> {
  readonly count: (bytes: number) => void
}

async function carry(to: string, client: Duplex, head: Buffer, { reach, idleMs, count }: Carrying): Promise<void> {
  const [, name = '', port = ''] = /^\[?([^\]]+)\]?:(\d{1,5})$/.exec(to) ?? []
  if (name === '') throw new Fault('failed', 'a connection to no address was asked for')
  const [{ address }] = await judgedAddresses(name, reach)
  const far = connect({ host: address, port: Number(port) })
  try {
    await once(far, 'connect', { signal: AbortSignal.timeout(idleMs) })
  } catch (cause) {
    far.destroy()
    throw new Fault('unavailable', `could not reach '${name}': ${messageOf(cause)}`, { cause })
  }
  far.setTimeout(idleMs, () => far.destroy())
  endTogether(client, far)
  far.on('data', (part: Buffer) => count(part.length))
  client.write('HTTP/1.1 200 Connection established\r\n\r\n')
  far.write(head)
  far.pipe(client)
  client.pipe(far)
}

/**
 * Neither outlives the other, of two that are piped into one another. One that came to its end has been given over
 * whole, and the other still has to send that: only one that broke off takes the other with it at once.
 */
export function endTogether(one: Duplex, other: Duplex): void {
  for (const [from, to] of [[one, other] as const, [other, one] as const]) {
    from.on('error', () => from.destroy())
    from.on('close', () => {
      if (from.readableEnded) to.end()
      else to.destroy()
    })
  }
}
