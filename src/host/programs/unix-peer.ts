/**
 * A connection to a socket in a directory that belongs to somebody else.
 *
 * A guest's QEMU owns its run directory and could put a link to any other socket of this machine under the
 * name we connect to, and we would knock there as root, with bytes a user chose. So who listens is asked of the
 * kernel before a byte is sent. Looking at the file first would leave a moment in between.
 */
import { connect, type Socket } from 'node:net'
import { Fault } from '#base/fault.ts'
import { codeOf } from '../files.ts'
import { peerCredentials } from '../native.ts'

export interface Listener {
  readonly pid: number
  readonly uid: number
}

/** @throws Fault `unavailable` when nobody listens there, `denied` when somebody else does */
export async function connectToProcess(path: string, listener: Listener): Promise<Socket> {
  const socket = connect(path)
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', (cause) => {
        reject(new Fault('unavailable', `nobody listens on '${path}' (${codeOf(cause) ?? 'failed'})`, { cause }))
      })
    })
    requireListener(socket, path, listener)
    return socket
  } catch (fault) {
    socket.destroy()
    throw fault
  }
}

/**
 * To be called on a connection before anything is sent or believed.
 * @throws Fault `denied` when somebody else listens at its other end
 */
export function requireListener(socket: Socket, path: string, { pid, uid }: Listener): void {
  const peer = peerCredentials(descriptorOf(socket))
  if (peer.pid === pid && peer.uid === uid) return
  throw new Fault('denied', `process ${peer.pid} of uid ${peer.uid} listens on '${path}', not process ${pid}`)
}

/** Node keeps it in a field without a public name. @throws Error when this Node has moved it */
function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined
  if (typeof fd !== 'number' || fd < 0) throw new Error('the socket has no descriptor')
  return fd
}
