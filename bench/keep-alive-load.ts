/**
 * A client that costs little: TLS connections that are kept, one request at a time on each, and replies
 * counted by their Content-Length. It stands beside the servers in the same measurement, so whatever it takes
 * it takes from both.
 */
import { once } from 'node:events'
import { connect, type TLSSocket } from 'node:tls'

export interface Load extends Disposable {
  /** Sends so many requests, spread over the connections; resolves when all are answered with 200. */
  readonly run: (requests: number) => Promise<void>
}

export interface LoadOptions {
  readonly port: number
  readonly certificate: string
  readonly connections: number
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
}

export async function keepAliveLoad({
  port,
  certificate,
  connections,
  path,
  headers = {},
}: LoadOptions): Promise<Load> {
  const lines = Object.entries({ Host: 'localhost', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`)
  const request = Buffer.from(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`)
  const sockets = await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = connect({ host: '127.0.0.1', port, ca: certificate, servername: 'localhost' })
      await once(socket, 'secureConnect')
      return socket
    }),
  )
  return {
    run: async (requests) => {
      const each = Math.ceil(requests / connections)
      await Promise.all(sockets.map((socket) => ask(socket, request, each)))
    },
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy()
    },
  }
}

function ask(socket: TLSSocket, request: Buffer, times: number): Promise<void> {
  return new Promise((resolve, reject) => {
    if (socket.destroyed) return reject(new Error('the server closed the connection while it was silent'))
    let [left, missing, text] = [times, -1, '']
    const onData = (part: Buffer) => {
      if (missing < 0) {
        text += part.toString('latin1')
        const end = text.indexOf('\r\n\r\n')
        if (end < 0) return
        if (!text.startsWith('HTTP/1.1 200')) return fail(new Error(text))
        missing = Number(/content-length: (\d+)/i.exec(text)?.[1]) - (text.length - end - 4)
      } else missing -= part.length
      if (missing > 0) return
      ;[missing, text] = [-1, '']
      left -= 1
      if (left > 0) socket.write(request)
      else {
        forget()
        resolve()
      }
    }
    const fail = (error: Error) => {
      forget()
      reject(error)
    }
    const onClose = () => fail(new Error('the server closed the connection'))
    const forget = () => socket.off('data', onData).off('error', fail).off('close', onClose)
    socket.on('data', onData).on('error', fail).on('close', onClose)
    socket.write(request)
  })
}
