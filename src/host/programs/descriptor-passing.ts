/**
 * Hands an open descriptor to the program at the other end of a unix socket, beside a text: SCM_RIGHTS, for which Node
 * has no word.
 *
 * A QEMU that runs has no right to open a tap or another guest's image. What it needs is opened here and given to it,
 * as it inherits descriptors when it starts.
 */
import type { Socket } from 'node:net'
import ffi from 'node:ffi'
import { Fault } from '#base/fault.ts'

const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_NOSIGNAL = 0x4000
/** `struct msghdr`, `struct iovec` and one `struct cmsghdr` with a descriptor, as on every 64-bit Linux. */
const [headerBytes, vectorBytes, controlBytes, controlLength] = [56, 16, 24, 20]

/** Loaded at first use: few processes ever need it. */
let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  return ffi.dlopen('libc.so.6', {
    sendmsg: { arguments: ['i32', 'pointer', 'i32'], return: 'i64' },
  }).functions
}

/**
 * The descriptor of a connected socket. Node keeps it in a field without a public name.
 * @throws Error when this Node has moved it
 */
export function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined
  if (typeof fd !== 'number' || fd < 0) throw new Error('the socket has no descriptor')
  return fd
}

/**
 * Sends the whole text and with it the descriptor, of which the receiver gets one of its own.
 * @throws Fault `unavailable` when the socket takes it not, or not all of it, at once
 */
export function sendWithDescriptor(socket: Socket, text: string, descriptor: number): void {
  // What Node still holds back would arrive after this.
  if (socket.writableLength > 0) throw new Fault('unavailable', 'the connection is busy')
  const data = Buffer.from(text)
  const vector = Buffer.alloc(vectorBytes)
  vector.writeBigUInt64LE(ffi.getRawPointer(data), 0)
  vector.writeBigUInt64LE(BigInt(data.length), 8)
  const control = Buffer.alloc(controlBytes)
  control.writeBigUInt64LE(BigInt(controlLength), 0)
  control.writeInt32LE(SOL_SOCKET, 8)
  control.writeInt32LE(SCM_RIGHTS, 12)
  control.writeInt32LE(descriptor, 16)
  const header = Buffer.alloc(headerBytes)
  header.writeBigUInt64LE(ffi.getRawPointer(vector), 16)
  header.writeBigUInt64LE(1n, 24)
  header.writeBigUInt64LE(ffi.getRawPointer(control), 32)
  header.writeBigUInt64LE(BigInt(controlBytes), 40)
  const sent = libc().sendmsg(descriptorOf(socket), header, MSG_NOSIGNAL)
  // A text this short goes whole or not at all; a part of one would leave the receiver with half a line.
  if (Number(sent) !== data.length) throw new Fault('unavailable', 'a descriptor could not be handed over')
}
