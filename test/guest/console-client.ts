/** A client of consoles that is not ours: Node's own WebSocket, on the public port. */
import { once } from 'node:events'
import { join } from 'node:path'
import { writeCsrfToken } from '#access/csrf.ts'
import { Keyring } from '#access/keyring.ts'
import { writeTicket } from '#access/ticket.ts'
import { seconds, systemClock, waitFor } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'
import type { Session } from '../contract/public-port.ts'
import type { TestNode } from '../node-under-test.ts'

export interface Opened {
  readonly port: number
  readonly ticket: string
  readonly user: string
  readonly upid: string
  readonly password?: string
  readonly cert?: string
}

export interface TerminalClient {
  /** All it has shown so far. */
  readonly text: () => string
  readonly type: (text: string) => void
  /** A message as it is. */
  readonly send: (message: string) => void
  readonly until: (sign: RegExp) => Promise<string>
  /** Code and reason of the end. */
  readonly ended: Promise<{ code: number; reason: string }>
  readonly close: () => void
}

/** Undici's: headers beside the protocols. */
type WithHeaders = new (url: string, options: { headers: Record<string, string>; protocols: string[] }) => WebSocket

export function webSocket(url: string, cookie: string): WebSocket {
  const socket = new (WebSocket as unknown as WithHeaders)(url, {
    headers: { Cookie: `PVEAuthCookie=${cookie}` },
    protocols: ['binary'],
  })
  socket.binaryType = 'arraybuffer'
  return socket
}

/** @param greeting the first line; default: the right one */
export async function terminalAt(
  url: string,
  cookie: string,
  { user, ticket }: Opened,
  greeting = `${user}:${ticket}\n`,
): Promise<TerminalClient> {
  const socket = webSocket(url, cookie)
  let text = ''
  // A letter may come in two parts.
  const letters = new TextDecoder()
  const ended = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.addEventListener('close', ({ code, reason }) => resolve({ code, reason }))
  })
  socket.addEventListener('message', ({ data }) => {
    text += typeof data === 'string' ? data : letters.decode(data as ArrayBuffer, { stream: true })
  })
  await once(socket, 'open')
  socket.send(greeting)
  return {
    text: () => text,
    send: (message) => socket.send(message),
    type: (typed) => socket.send(`0:${Buffer.byteLength(typed)}:${typed}`),
    until: (sign) =>
      waitFor(() => sign.exec(text)?.[0], { what: String(sign), timeoutMs: 60_000 }).catch((fault: unknown) => {
        throw new Error(`not shown, but ${JSON.stringify(text.slice(-500))}`, { cause: fault })
      }),
    ended,
    close: () => socket.close(),
  }
}

/** Signed with the node's own keys, because the password of this machine's root is nobody's business here. */
export async function rootSession({ settings }: TestNode): Promise<Session> {
  const directory = join(settings.stateDir, 'keys')
  const keys = await new Keyring({ directory, clock: systemClock, random: systemRandom }).current()
  const [user, now] = ['root@pam', seconds(systemClock)]
  return { ticket: writeTicket(keys, user, now), csrf: writeCsrfToken(keys, user, now) }
}
