/**
 * A terminal: text between a client and a line (a serial port, a shell), as xterm.js in Proxmox VE's interface
 * speaks it. The client first sends `user:ticket` and a line break and hears `OK`; then it gets what the line says,
 * as it is, and sends
 *
 *   0:<bytes>:<typed text>    1:<columns>:<rows>:    2 (I am still here)
 */
import { timingSafeEqual } from 'node:crypto'
import { type Duplex, Transform, type TransformCallback } from 'node:stream'
import { Fault } from '#base/fault.ts'
import { readLine } from './exact-read.ts'
import { joined } from './join.ts'
import { consoleLimits } from './limits.ts'

/** What a terminal shows. */
export interface Line {
  readonly stream: Duplex
  /** Absent where nobody asks how large the terminal is. */
  readonly resize?: (columns: number, rows: number) => void
}

export interface TerminalFacts {
  readonly user: string
  readonly ticket: string
  readonly connect: () => Promise<Line>
  readonly greetingMs?: number
}

export async function serveTerminal(client: Duplex, facts: TerminalFacts): Promise<void> {
  const { user, ticket, greetingMs = consoleLimits.greetingMs } = facts
  const limit = { signal: AbortSignal.timeout(greetingMs), who: 'the client' }
  const greeting = Buffer.from(await readLine(client, consoleLimits.greetingBytes, limit))
  const expected = Buffer.from(`${user}:${ticket}`)
  if (greeting.length !== expected.length || !timingSafeEqual(greeting, expected)) {
    throw new Fault('unauthenticated', 'authentication failure')
  }
  const { stream, resize } = await facts.connect()
  stream.on('error', () => stream.destroy())
  client.write('OK')
  await joined(client, stream, { through: new TypedText(resize) })
}

/** Longer than any head: `0:4194304:`, `1:4096:4096:`. */
const headCharacters = 16

/** Takes the client's messages apart and passes on what was typed. Holds no more than the head of a message. */
export class TypedText extends Transform {
  readonly #resize: ((columns: number, rows: number) => void) | undefined
  #head = ''
  /** Bytes of typed text still to come. */
  #left = 0

  constructor(resize?: (columns: number, rows: number) => void) {
    super()
    this.#resize = resize
  }

  override _transform(part: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    try {
      let at = 0
      while (at < part.length) at = this.#left > 0 ? this.#pass(part, at) : this.#readHead(part, at)
      done()
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)))
    }
  }

  #pass(part: Buffer, at: number): number {
    const end = Math.min(part.length, at + this.#left)
    this.push(part.subarray(at, end))
    this.#left -= end - at
    return end
  }

  #readHead(part: Buffer, at: number): number {
    this.#head += String.fromCharCode(part[at] ?? 0)
    const [, text, columns, rows] = /^(?:0:(\d+):|1:(\d+):(\d+):|2)$/.exec(this.#head) ?? ['unfinished']
    if (text !== undefined) this.#left = within('length of a text', text, consoleLimits.inputBytes, 0)
    else if (columns !== undefined && rows !== undefined) {
      this.#resize?.(within('width', columns, consoleLimits.columns), within('height', rows, consoleLimits.rows))
    } else if (this.#head !== '2') {
      if (/^(?:[01]|[01]:\d*|1:\d+:\d*)$/.test(this.#head) && this.#head.length < headCharacters) return at + 1
      throw new Fault('invalid', 'the client sent what is no message of a terminal')
    }
    this.#head = ''
    return at + 1
  }
}

function within(what: string, digits: string, maximum: number, minimum = 1): number {
  const value = Number(digits)
  if (value >= minimum && value <= maximum) return value
  throw new Fault('invalid', `${what} ${digits}: it must be from ${minimum} to ${maximum}`)
}
