/**
 * `hako vm console 100`: this terminal becomes the one the node has opened, until it closes or Ctrl-] is pressed.
 *
 * Every key goes there, Ctrl-C too. Only Ctrl-] stays here: it is what `virsh console` and telnet use, and next to no
 * program in a guest wants it.
 */
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { Fault, messageOf } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { acceptOf, WebSocketStream } from '#http/websocket-stream.ts'
import { exitCodes } from './exit.ts'
import type { Terminal } from './terminal.ts'
import { say } from './text.ts'

/** What the node returned. */
export interface OpenedTerminal {
  readonly port: number
  readonly ticket: string
  readonly user: string
}

export interface ConsoleFacts {
  readonly opened: OpenedTerminal
  /** Where the terminal is taken. */
  readonly path: string
  readonly socketPath: string
  readonly terminal: Terminal
}

const leaveKey = 0x1d
const headBytes = 16 * 1024
const answerMs = 15_000

/** @throws Fault `invalid` without a person's terminal; `failed` when the node does not hand the terminal over */
export function requireTerminal(): void {
  if (process.stdin.isTTY && process.stdout.isTTY) return
  throw new Fault('invalid', 'a console is for a person: standard input and output are no terminal', {
    remedy: 'For a program, `hako vm exec` runs a command in a guest.',
  })
}

export async function openConsole({ opened, path, socketPath, terminal }: ConsoleFacts): Promise<number> {
  const { port, ticket, user } = opened
  const query = `port=${port}&vncticket=${encodeURIComponent(ticket)}`
  const line = await webSocketTo(socketPath, `/api2/json${path}?${query}`)
  const gone = new Promise<Error | undefined>((resolve) => {
    line.on('error', resolve)
    line.once('close', () => resolve(undefined))
  })
  line.write(`${user}:${ticket}\n`)
  await untilOk(line, gone)
  terminal.show(say(terminal.language, 'consoleOpen'))
  const leave = bind(line)
  const error = await gone
  leave()
  terminal.show(say(terminal.language, 'consoleClosed'))
  return error ? exitCodes.failed : exitCodes.ok
}

/** Makes this terminal that one. @returns gives it back */
function bind(line: Duplex): () => void {
  const { stdin, stdout } = process
  const tell = () => line.write(`1:${stdout.columns}:${stdout.rows}:`)
  const typed = (keys: Buffer) => {
    const at = keys.indexOf(leaveKey)
    const sent = at < 0 ? keys : keys.subarray(0, at)
    if (sent.length > 0) line.write(Buffer.concat([Buffer.from(`0:${sent.length}:`), sent]))
    if (at >= 0) line.end()
  }
  stdin.setRawMode(true)
  stdin.on('data', typed)
  stdout.on('resize', tell)
  line.on('data', (part: Buffer) => {
    if (!stdout.write(part)) line.pause()
  })
  const more = () => line.resume()
  stdout.on('drain', more)
  tell()
  return () => {
    stdin.setRawMode(false)
    stdin.off('data', typed)
    // Or it would wait for one more key.
    stdin.pause()
    stdout.off('resize', tell)
    stdout.off('drain', more)
  }
}

async function untilOk(line: Duplex, gone: Promise<Error | undefined>): Promise<void> {
  const answer = new Promise<Buffer>((resolve) => {
    const read = () => {
      const bytes: unknown = line.read(2)
      if (!Buffer.isBuffer(bytes)) return
      line.off('readable', read)
      resolve(bytes)
    }
    line.on('readable', read)
  })
  const said = await Promise.race([answer, gone])
  if (Buffer.isBuffer(said) && said.toString('latin1') === 'OK') return
  line.destroy()
  throw new Fault('failed', 'the node closed the console at once', {
    remedy: 'The log of its task says why: hako task list',
    cause: said,
  })
}

/** @throws Fault `failed` in the node's words when it refuses, `unavailable` when it does not answer */
async function webSocketTo(socketPath: string, target: string): Promise<WebSocketStream> {
  const socket = connect(socketPath)
  const key = Buffer.from(systemRandom.bytes(16)).toString('base64')
  const head = [
    `GET ${target} HTTP/1.1`,
    'Host: localhost',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    `Sec-WebSocket-Key: ${key}`,
    'Sec-WebSocket-Protocol: binary',
  ]
  socket.setTimeout(answerMs, () => socket.destroy(new Error(`no answer within ${answerMs / 1000} s`)))
  socket.write(`${head.join('\r\n')}\r\n\r\n`)
  try {
    const { status, lines, rest } = await readHead(socket)
    const accepted = lines.some((line) => line.toLowerCase() === `sec-websocket-accept: ${acceptOf(key).toLowerCase()}`)
    if (!status.startsWith('HTTP/1.1 101 ') || !accepted) {
      throw new Fault('failed', `the node does not hand the console over: ${status.replace(/^\S+ /, '')}`)
    }
    socket.setTimeout(0)
    return new WebSocketStream(socket, rest, { isClient: true })
  } catch (cause) {
    socket.destroy()
    if (cause instanceof Fault) throw cause
    throw new Fault('unavailable', `the node at ${socketPath} cannot be reached: ${messageOf(cause)}`, { cause })
  }
}

function readHead(socket: Socket): Promise<{ status: string; lines: string[]; rest: Buffer }> {
  return new Promise((resolve, reject) => {
    let bytes = Buffer.alloc(0)
    const read = (part: Buffer) => {
      bytes = Buffer.concat([bytes, part])
      const end = bytes.indexOf('\r\n\r\n')
      if (end < 0 && bytes.length < headBytes) return
      socket.off('data', read)
      socket.pause()
      const [status = '', ...lines] = bytes.toString('latin1', 0, Math.max(0, end)).split('\r\n')
      resolve({ status, lines, rest: bytes.subarray(end + 4) })
    }
    socket.on('data', read)
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('it hung up')))
  })
}
