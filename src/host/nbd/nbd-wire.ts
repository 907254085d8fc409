/** The Network Block Device protocol in bytes: numbers, requests, and the parts of replies. No I/O here. */
import { Fault } from '#base/fault.ts'

export const handshake = {
  magic: 'NBDMAGICIHAVEOPT',
  optionMagic: 'IHAVEOPT',
  replyMagic: 0x3_e889_0455_65a9n,
  fixedNewstyle: 1,
  noZeroes: 2,
} as const

export const option = {
  abort: 2,
  list: 3,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const
export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errorFlag: 0x8000_0000,
  unsupported: 0x8000_0001,
  invalid: 0x8000_0003,
  unknown: 0x8000_0006,
} as const
export const info = { export: 0, blockSize: 3 } as const

export const transmissionFlag = { hasFlags: 1, readOnly: 2, sendsFlush: 4, sendsDf: 128, isSameForAll: 256 } as const
/** Of a read: in one piece, though parts of it may be holes. */
export const wholeFlag = 4
/** Of a request for block status: one extent is enough. */
export const oneExtentFlag = 8
export const command = { read: 0, write: 1, disconnect: 2, flush: 3, blockStatus: 7 } as const

export const replyMagic = { simple: 0x6744_6698, structured: 0x668e_33ef } as const
export const chunkType = { none: 0, data: 1, hole: 2, blockStatus: 5, error: 0x8001, errorOffset: 0x8002 } as const
export const chunkDone = 1
export const chunkErrorFlag = 0x8000

export const requestBytes = 28
export const simpleReplyBytes = 16
export const structuredReplyBytes = 20
/** A structured reply with data, as far as its data. */
export const dataHeadBytes = structuredReplyBytes + 8
export const optionReplyBytes = 20

/** Contexts of block status the client asks for. */
export const allocationContext = 'base:allocation'
/** In `base:allocation`: nothing is stored there, and it reads as zeros. */
export const allocationHole = 1
export const allocationZero = 2

export function optionRequest(number: number, data: Buffer): Buffer {
  const head = Buffer.alloc(16)
  head.write(handshake.optionMagic, 'latin1')
  head.writeUInt32BE(number, 8)
  head.writeUInt32BE(data.length, 12)
  return Buffer.concat([head, data])
}

/** Text with its length before it, as options carry names. */
export function counted(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([uint32(bytes.length), bytes])
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export function request(type: number, cookie: number, offset: number, length: number, flags = 0): Buffer {
  const bytes = Buffer.allocUnsafe(requestBytes)
  bytes.writeUInt32BE(0x2560_9513, 0)
  bytes.writeUInt16BE(flags, 4)
  bytes.writeUInt16BE(type, 6)
  writeUint64(bytes, cookie, 8)
  writeUint64(bytes, offset, 16)
  bytes.writeUInt32BE(length, 24)
  return bytes
}

export interface StructuredHead {
  readonly isDone: boolean
  readonly type: number
  readonly cookie: number
  readonly length: number
}

/** @param bytes from the magic on, 20 or more */
export function structuredHead(bytes: Buffer): StructuredHead {
  return {
    isDone: (bytes.readUInt16BE(4) & chunkDone) !== 0,
    type: bytes.readUInt16BE(6),
    cookie: uint64At(bytes, 8),
    length: bytes.readUInt32BE(16),
  }
}

/** The head of a part of an answer; `length` bytes follow. */
export function structuredPart(
  { isDone, type, cookie }: { readonly isDone: boolean; readonly type: number; readonly cookie: Buffer },
  length: number,
): Buffer {
  const head = Buffer.alloc(structuredReplyBytes)
  head.writeUInt32BE(replyMagic.structured, 0)
  head.writeUInt16BE(isDone ? chunkDone : 0, 4)
  head.writeUInt16BE(type, 6)
  cookie.copy(head, 8)
  head.writeUInt32BE(length, 16)
  return head
}

export function optionAnswer(number: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const magic = Buffer.alloc(8)
  magic.writeBigUInt64BE(handshake.replyMagic)
  return Buffer.concat([magic, uint32(number), uint32(type), uint32(data.length), data])
}

export function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  writeUint64(bytes, value, 0)
  return bytes
}

function writeUint64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at)
  bytes.writeUInt32BE(value % 2 ** 32, at + 4)
}

/** Not exact above 2^53, where nothing of ours is. */
export function uint64At(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4)
}

/** The protocol's numbers of errors, which are Linux' own. */
export function errorName(number: number): string {
  const names: Readonly<Record<number, string>> = {
    1: 'not permitted',
    5: 'input/output error',
    12: 'out of memory',
    22: 'invalid request',
    28: 'no space left',
    75: 'too large',
    95: 'not supported',
    108: 'the server is shutting down',
  }
  return names[number] ?? `error ${number}`
}

/** Of a server that is none, or hostile. */
export function nonsense(path: string, how: string, cause?: unknown): Fault {
  return new Fault('failed', `the NBD server at '${path}' breaks the protocol: ${how}`, { cause })
}

/** What a server says may end up on a terminal. */
export function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 200)
}
