/**
 * The front's side of the frames: one connection to the daemon, made when first needed and again when it was
 * lost, on which all calls travel.
 *
 * When it is lost, whoever waits hears of it at once. A read is then asked for once more, because a daemon
 * that was started again has a new socket and knows nothing of the old one; anything else may have been done.
 */
import { connect, type Socket } from 'node:net'
import { Fault } from '#base/fault.ts'
import { bounds } from './bounds.ts'
import { callProtocol, type Frame, FrameReader, FrameWriter, frameBytes, frameLimits } from './call-frame.ts'
import { type Given, type LinkCall, type LinkReply, replyFrom } from './call-message.ts'

export interface CallLink {
  /** @returns what gives the call up: nobody waits for its reply any more */
  readonly send: (call: LinkCall, done: Answered) => () => void
  /** Says that a kept reply was given again. */
  readonly given: (id: number, given: Given) => void
  readonly close: () => void
}

/** A reply, or why there is none. */
export type Answered = (answer: LinkReply | Fault) => void

interface Pending {
  readonly call: LinkCall
  readonly done: Answered
  readonly isRetry: boolean
}

interface Line {
  readonly socket: Socket
  readonly writer: FrameWriter
  /** The daemon has agreed to speak in frames. */
  isUp: boolean
}

/** @param onLost whatever the daemon said before holds no longer */
export function createCallLink(daemonSocket: string, onLost: () => void = () => {}): CallLink {
  const pending = new Map<number, Pending>()
  let lastId = 0
  let line: Line | undefined

  function post(waiting: Pending): number {
    lastId = (lastId + 1) % 0xffff_ffff
    pending.set(lastId, waiting)
    line ??= open()
    line.writer.send(frameBytes('call', lastId, waiting.call))
    return lastId
  }

  function open(): Line {
    const socket = connect(daemonSocket)
    // Frames may follow at once: until the daemon has agreed it reads none of them.
    socket.write(`GET / HTTP/1.1\r\nHost: daemon\r\nConnection: Upgrade\r\nUpgrade: ${callProtocol}\r\n\r\n`)
    const opened = { socket, writer: new FrameWriter(socket), isUp: false }
    let cause: unknown
    socket.on('error', (error) => (cause = error))
    socket.once('close', () => lost(opened, cause))
    listen(opened, answer)
    return opened
  }

  function answer({ kind, id, head, body }: Frame): void {
    const waiting = pending.get(id)
    pending.delete(id)
    if (kind === 'reply') waiting?.done(replyFrom(head, body))
  }

  function lost({ isUp }: Line, cause: unknown): void {
    line = undefined
    onLost()
    const waiting = [...pending.values()]
    pending.clear()
    for (const one of waiting) {
      if (isUp && one.call.method === 'GET' && !one.isRetry) post({ ...one, isRetry: true })
      else one.done(unreachable(cause))
    }
  }

  return {
    send(call, done) {
      if (pending.size >= bounds.callsAtOnce) {
        done(unreachable(new Error(`${pending.size} calls wait already`)))
        return () => {}
      }
      const id = post({ call, done, isRetry: false })
      return () => {
        if (pending.delete(id)) line?.writer.send(frameBytes('cancel', id))
      }
    },
    given: (id, given) => line?.writer.send(frameBytes('given', id, given)),
    close: () => line?.socket.destroy(),
  }
}

/** First the daemon's consent, then frames. */
function listen(line: Line, onFrame: (frame: Frame) => void): void {
  const { socket } = line
  const reader = new FrameReader(frameLimits.replyBytes, onFrame)
  let consent = Buffer.alloc(0)
  socket.on('data', (part: Buffer) => {
    try {
      if (line.isUp) return reader.push(part)
      consent = Buffer.concat([consent, part])
      const end = consent.indexOf('\r\n\r\n')
      if (end < 0) return
      if (!consent.toString('latin1', 0, end).startsWith('HTTP/1.1 101 '))
        throw new Error('the daemon speaks no frames')
      line.isUp = true
      reader.push(consent.subarray(end + 4))
    } catch (cause) {
      socket.destroy(cause instanceof Error ? cause : undefined)
    }
  })
}

export function unreachable(cause: unknown): Fault {
  return new Fault('unavailable', 'the daemon of this node does not answer', {
    cause,
    remedy: 'It may be restarting. If this lasts, look at its log.',
  })
}
