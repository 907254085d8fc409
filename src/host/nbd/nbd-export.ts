/**
 * Serves something that can be read at any place as a read-only disk over NBD, on a unix socket that one user alone can
 * reach. For content that is nowhere as a file: what a backup holds.
 */
import { chmod, chown, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { once } from 'node:events'
import { dirname } from 'node:path'
import { makeDirectory } from '../files.ts'
import { Gone, NbdSession } from './nbd-session.ts'

export interface DiskStatus {
  readonly length: number
  /** Reads as zeros for certain. */
  readonly isZero: boolean
}

export interface ReadableDisk {
  readonly sizeBytes: number
  /** Several reads may be under way at once. */
  readonly read: (offset: number, into: Uint8Array) => Promise<void>
  /** What lies there, from `offset` on, in order and without gaps; the last part may go beyond what was asked for. */
  readonly statusOf?: (offset: number, length: number) => Promise<readonly DiskStatus[]>
}

export interface Export {
  readonly socket: string
  /** Who alone may connect. */
  readonly uid: number
  readonly disk: ReadableDisk
  /** Told when content could not be read; the client is told of an input/output error. */
  readonly onError: (cause: unknown) => void
}

/** QEMU needs one, and one more while it lets go of a lost one; tools that copy use several. */
const clientsMaximum = 8

/** Serves until the result is disposed of. */
export async function exportDisk({ socket: path, uid, disk, onError }: Export): Promise<AsyncDisposable> {
  await makeDirectory(dirname(path))
  await rm(path, { force: true })
  const clients = new Set<Socket>()
  const server = createServer((socket) => {
    clients.add(socket)
    socket.on('error', () => {}) // Its end is told by the stream.
    socket.on('close', () => clients.delete(socket))
    new NbdSession(socket, disk, onError)
      .serve()
      .catch((cause: unknown) => {
        if (!(cause instanceof Gone)) onError(cause)
      })
      .finally(() => socket.destroy())
  })
  server.maxConnections = clientsMaximum
  server.listen(path)
  await once(server, 'listening')
  await chmod(path, 0o600)
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
