/**
 * A port of a file machine: one question after the other, and what comes back. The machine reads what somebody made to do
 * harm, so nothing of its answers is believed: lines have a bound, silence has, and every byte is looked at.
 */
import type { Socket } from 'node:net'
import { Fault } from '#base/fault.ts'
import { connectToProcess, type Listener } from '#host/programs/unix-peer.ts'

export type Question = 'disk' | 'list' | 'tree' | 'stat' | 'read'

/** A line holds 24 KiB; the reason of a refusal is shorter. */
const lineMaximumBytes = 64 * 1024
const lettersOf64 = /^[A-Za-z0-9+/]*={0,2}$/

export class FilePort {
  readonly #socket: Socket
  readonly #silenceMs: number
  #rest: Buffer = Buffer.alloc(0)
  #asked = 0
  #isBusy = false

  private constructor(socket: Socket, silenceMs: number) {
    this.#socket = socket
    this.#silenceMs = silenceMs
    socket.on('error', () => {}) // Its end is told by the stream.
  }

  /** @param silenceMs longest pause within an answer */
  static async connect(path: string, listener: Listener, silenceMs: number): Promise<FilePort> {
    return new FilePort(await connectToProcess(path, listener), silenceMs)
  }

  /** Whether it can be asked now. One whose answer somebody did not want to the end never can be again. */
  get isFree(): boolean {
    return !this.#isBusy && !this.#socket.destroyed
  }

  get isGone(): boolean {
    return this.#socket.destroyed
  }

  /** From now on it is the caller's, who asks it once. */
  reserve(): this {
    this.#isBusy = true
    return this
  }

  /** @throws Fault `invalid` with the machine's words; `unavailable` when it does not keep to what was agreed */
  async *ask(question: Question, ...words: readonly string[]): AsyncGenerator<Buffer> {
    this.#isBusy = true
    let isOver = false
    try {
      this.#asked += 1
      const id = String(this.#asked)
      this.#socket.write(`${[id, question, ...words].join(' ')}\n`)
      if ((await this.#line()) !== `#${id}`) throw unreadable()
      for (;;) {
        const line = await this.#line()
        if (line === '.0') break
        if (line.startsWith('.1 ')) {
          isOver = true
          throw new Fault(
            'invalid',
            line
              .slice(3)
              .replaceAll(/[^\x20-\x7e]/g, '?')
              .trim() || 'it cannot be read',
          )
        }
        if (line.length % 4 !== 0 || !lettersOf64.test(line)) throw unreadable()
        yield Buffer.from(line, 'base64')
      }
      isOver = true
    } finally {
      this.#isBusy = false
      // What it still has to say would be taken for the next answer.
      if (!isOver) this.close()
    }
  }

  close(): void {
    this.#socket.destroy()
  }

  async #line(): Promise<string> {
    for (;;) {
      const end = this.#rest.indexOf('\n')
      if (end >= 0) {
        const line = this.#rest.toString('latin1', 0, end)
        this.#rest = this.#rest.subarray(end + 1)
        return line
      }
      if (this.#rest.length > lineMaximumBytes) throw unreadable()
      const part: unknown = this.#socket.read()
      if (Buffer.isBuffer(part)) this.#rest = this.#rest.length === 0 ? part : Buffer.concat([this.#rest, part])
      else if (this.#socket.readableEnded || this.#socket.destroyed) throw unreadable()
      else await this.#untilMore()
    }
  }

  #untilMore(): Promise<void> {
    return new Promise((resolve, reject) => {
      const events = ['readable', 'end', 'close']
      const settle = () => {
        clearTimeout(timer)
        for (const event of events) this.#socket.off(event, settle)
        resolve()
      }
      const timer = setTimeout(() => {
        for (const event of events) this.#socket.off(event, settle)
        this.close()
        reject(new Fault('timeout', 'the machine that reads the disks of the backup says nothing any more'))
      }, this.#silenceMs)
      for (const event of events) this.#socket.on(event, settle)
    })
  }
}

function unreadable(): Fault {
  return new Fault('unavailable', 'the machine that reads the disks of the backup has ended or lost its way', {
    remedy: 'Ask again: another one is started.',
  })
}
