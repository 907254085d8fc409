/**
 * Serves one image file over NBD on a unix socket, for as long as it is needed: how a stopped guest's
 * qcow2 disks are read and new ones written.
 *
 * The server ends with its last client and with the process that started it, however that ends, so it
 * needs no clean-up of its own. The format is named and no backing file is followed: a guest may have
 * written a header of its choice to the start of its disk.
 */
import { access, rm, stat } from 'node:fs/promises'
import { dirname, isAbsolute } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { waitFor } from '#base/clock.ts'
import { makeDirectory } from '../files.ts'
import type { Host } from '../host.ts'
import { NbdClient } from './nbd.ts'

export interface ServedImage {
  /** Absolute. */
  readonly path: string
  readonly format: 'raw' | 'qcow2'
  /** What the image is based on, nearest first, as the caller has checked it. Absent: nothing. */
  readonly backing?: readonly { readonly path: string; readonly format: 'raw' | 'qcow2' }[] | undefined
  readonly isReadOnly: boolean
  /** One of its stored bitmaps, for the client's extents. */
  readonly bitmap?: string | undefined
  /** Where the socket is to be; removed at the end. */
  readonly socket: string
  readonly signal?: AbortSignal | undefined
}

/** No disk takes longer to read. */
const longestMs = 7 * 24 * 60 * 60_000
const startMs = 15_000

/**
 * Opens the image through a server of its own. Disposing of the result ends both.
 * @throws Fault `failed` with the server's words when the image cannot be opened
 */
export async function openImage(host: Host, image: ServedImage): Promise<{ client: NbdClient } & AsyncDisposable> {
  const { path, format, backing: below = [], isReadOnly, bitmap, socket, signal } = image
  if (!isAbsolute(path)) throw new Error(`an image is named by an absolute path, not '${path}'`)
  const end = new AbortController()
  await makeDirectory(dirname(socket))
  await rm(socket, { force: true })
  const backing = format === 'raw' ? {} : { backing: backingNode(below) }
  // What is not there is named by the server.
  const isDevice = (await stat(path).catch(() => undefined))?.isBlockDevice() === true
  const node = {
    driver: format,
    ...backing,
    discard: 'unmap',
    file: { driver: isDevice ? 'host_device' : 'file', filename: path, discard: 'unmap' },
  }
  const serving = host.run(
    [
      'setpriv',
      '--pdeathsig=KILL',
      'qemu-nbd',
      `--socket=${socket}`,
      '--shared=1',
      ...(isReadOnly ? ['--read-only'] : []),
      ...(bitmap === undefined ? [] : [`--bitmap=${bitmap}`]),
      `json:${JSON.stringify(node)}`,
    ],
    { timeoutMs: longestMs, signal: end.signal },
  )
  const ended = serving.then(
    () => new Fault('failed', `qemu-nbd ended before it served '${path}'`),
    (cause: unknown) => cause,
  )
  const close = async () => {
    end.abort()
    await ended
    await rm(socket, { force: true })
  }
  try {
    const client = await Promise.race([
      ended.then((cause) =>
        Promise.reject(cause instanceof Fault ? cause : new Fault('failed', 'qemu-nbd', { cause })),
      ),
      connected(socket, { bitmap, signal }),
    ])
    return {
      client,
      async [Symbol.asyncDispose]() {
        await client[Symbol.asyncDispose]()
        // It writes out what it holds and ends by itself, now that its only client is gone.
        const limit = new AbortController()
        const late = waitFor(() => false, { what: 'qemu-nbd', timeoutMs: startMs, signal: limit.signal })
        await Promise.race([ended, late.catch(() => {})])
        limit.abort()
        await close()
      },
    }
  } catch (cause) {
    await close()
    throw cause
  }
}

function backingNode([first, ...rest]: NonNullable<ServedImage['backing']>): object | null {
  if (!first) return null
  const { path, format } = first
  const backing = format === 'raw' ? {} : { backing: backingNode(rest) }
  return { driver: format, ...backing, 'read-only': true, file: { driver: 'file', filename: path, 'read-only': true } }
}

async function connected(
  socket: string,
  options: { readonly bitmap: string | undefined; readonly signal: AbortSignal | undefined },
): Promise<NbdClient> {
  const isThere = () =>
    access(socket).then(
      () => true,
      () => false,
    )
  const connect = async () => {
    if (!(await isThere())) return undefined
    try {
      return await NbdClient.connect(socket, options)
    } catch (cause) {
      // The socket appears a moment before the server listens on it.
      if (isFault(cause, 'unavailable')) return undefined
      throw cause
    }
  }
  return waitFor(connect, { what: `qemu-nbd on '${socket}'`, timeoutMs: startMs, everyMs: 10, signal: options.signal })
}
