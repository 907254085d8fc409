/**
 * Serves something that can be read at any place as a read-only disk over NBD, on a unix socket that one user alone can
 * reach. For content that is nowhere as a file: what a backup holds.
 *
 * Requests of a client are answered one after the other, and the next is read when the answer is on its way, so that a
 * client cannot make this process hold more than one answer for it.
 */
import { chown, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { once } from 'node:events'
import { dirname } from 'node:path'
import { Fault } from '#base/fault.ts'
import { makeDirectory } from './files.ts'
import {
  command,
  handshake,
  info,
  option,
  optionReply,
  replyMagic,
  requestBytes,
  transmissionFlag,
  uint32,
} from './nbd-wire.ts'

export interface ReadableDisk {
  readonly sizeBytes: number
  readonly read: (offset: number, into: Uint8Array) => Promise<void>
}

export interface Export {
  readonly socket: string
  readonly uid: number
  readonly disk: ReadableDisk
  /** Told when content could not be read; the client is told of an input/output error. */
  readonly onError: (cause: unknown) => void
}

/** QEMU needs one, and one more while it lets go of a lost one. */
const clientsMaximum = 4
const longestReadBytes = 32 * 1024 * 1024
const longestOptionBytes = 64 * 1024
const hasFlags = 1
const [inputOutputError, invalidRequest, notPermitted] = [5, 22, 1]

/** Serves until the result is disposed of. */
export async function exportDisk({ socket: path, uid, disk, onError }: Export): Promise<AsyncDisposable> {
  await makeDirectory(dirname(path))
  await rm(path, { force: true })
  const clients = new Set<Socket>()
  const server = createServer((socket) => {
    clients.add(socket)
    socket.on('error', () => {}) // Its end is told by the stream.
    socket.on('close', () => clients.delete(socket))
    serve(socket, disk, onError)
      .catch((cause: unknown) => {
        if (!(cause instanceof Gone)) onError(cause)
      })
      .finally(() => socket.destroy())
  })
  server.maxConnections = clientsMaximum
  server.listen(path)
  await once(server, 'listening')
  await chown(path, uid, uid)
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      for (const client of clients) client.destroy()
      await closed
      await rm(path, { force: true })
    },
  }
}

/** The client has gone. */
class Gone extends Error {}

async function serve(socket: Socket, disk: ReadableDisk, onError: Export['onError']): Promise<void> {
  const flags = Buffer.alloc(2)
  flags.writeUInt16BE(handshake.fixedNewstyle | handshake.noZeroes)
  await send(socket, Buffer.concat([Buffer.from(handshake.magic, 'latin1'), flags]))
  await take(socket, 4)
  if (!(await agree(socket, disk.sizeBytes))) return
  for (;;) {
    const head = await take(socket, requestBytes)
    const [type, cookie] = [head.readUInt16BE(6), head.subarray(8, 16)]
    const [offset, length] = [Number(head.readBigUInt64BE(16)), head.readUInt32BE(24)]
    if (type === command.disconnect) return
    // What follows a write would have to be read past; this disk says that it takes none.
    if (type === command.write) throw new Fault('invalid', 'a write to a disk that is read-only')
    if (type === command.flush) await reply(socket, cookie, 0)
    else if (type !== command.read) await reply(socket, cookie, notPermitted)
    else if (length > longestReadBytes || offset + length > disk.sizeBytes) await reply(socket, cookie, invalidRequest)
    else {
      const content = Buffer.alloc(length)
      const error = await disk.read(offset, content).then(
        () => 0,
        (cause: unknown) => {
          onError(cause)
          return inputOutputError
        },
      )
      await reply(socket, cookie, error, content)
    }
  }
}

/** Answers options until the client goes on to the disk. False when it leaves. */
async function agree(socket: Socket, sizeBytes: number): Promise<boolean> {
  for (;;) {
    const head = await take(socket, 16)
    const [number, length] = [head.readUInt32BE(8), head.readUInt32BE(12)]
    if (head.toString('latin1', 0, 8) !== handshake.optionMagic || length > longestOptionBytes) {
      throw new Fault('invalid', 'the client does not speak NBD')
    }
    await take(socket, length)
    if (number === option.abort) return false
    if (number !== option.go) {
      await send(socket, optionAnswer(number, optionReply.unsupported))
      continue
    }
    const facts = Buffer.alloc(12)
    facts.writeUInt16BE(info.export, 0)
    facts.writeBigUInt64BE(BigInt(sizeBytes), 2)
    facts.writeUInt16BE(hasFlags | transmissionFlag.readOnly | transmissionFlag.sendsFlush, 10)
    await send(
      socket,
      Buffer.concat([optionAnswer(number, optionReply.info, facts), optionAnswer(number, optionReply.ack)]),
    )
    return true
  }
}

function optionAnswer(number: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const magic = Buffer.alloc(8)
  magic.writeBigUInt64BE(handshake.replyMagic)
  return Buffer.concat([magic, uint32(number), uint32(type), uint32(data.length), data])
}

async function reply(socket: Socket, cookie: Buffer, error: number, content: Buffer = Buffer.alloc(0)): Promise<void> {
  const parts = [uint32(replyMagic.simple), uint32(error), cookie, ...(error === 0 ? [content] : [])]
  await send(socket, Buffer.concat(parts))
}

async function send(socket: Socket, bytes: Buffer): Promise<void> {
  if (socket.destroyed) throw new Gone()
  if (!socket.write(bytes)) await untilOneOf(socket, ['drain', 'close'])
}

async function take(socket: Socket, bytes: number): Promise<Buffer> {
  if (bytes === 0) return Buffer.alloc(0)
  for (;;) {
    const part: unknown = socket.read(bytes)
    if (Buffer.isBuffer(part) && part.length === bytes) return part
    if (part !== null || socket.readableEnded || socket.destroyed) throw new Gone()
    await untilOneOf(socket, ['readable', 'end', 'close'])
  }
}

/** Leaves no listener behind: there may be one wait for each of a million answers. */
function untilOneOf(socket: Socket, events: readonly string[]): Promise<void> {
  return new Promise((resolve) => {
    const settle = () => {
      for (const event of events) socket.off(event, settle)
      resolve()
    }
    for (const event of events) socket.on(event, settle)
  })
}
