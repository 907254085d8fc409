/** Gives a server its place in the file system, and takes it away again. */
import { chmod, chown, rm } from 'node:fs/promises'
import { connect, type Server, type Socket } from 'node:net'
import { once } from 'node:events'
import { type Clock, systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { codeOf } from '#host/files.ts'

export interface SocketPlace {
  readonly path: string
  readonly mode: number
  /** Owner; default root. */
  readonly uid?: number
}

/** What is open on each server that listens here, whatever it became: an upgraded connection is no longer HTTP's. */
const connections = new WeakMap<Server, Set<Socket>>()

/**
 * Listens. A socket nobody answers on is a leftover and is replaced.
 * @throws Fault `conflict` when another daemon answers there
 */
export async function listenOnSocket(server: Server, { path, mode, uid }: SocketPlace): Promise<void> {
  if (await somebodyAnswers(path)) {
    throw new Fault('conflict', `another process already listens on '${path}'`, {
      remedy: 'Is this node already running? `hako lab down` ends it.',
    })
  }
  await rm(path, { force: true })
  const open = new Set<Socket>()
  connections.set(server, open)
  server.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  server.listen(path)
  await once(server, 'listening')
  await chmod(path, mode)
  if (uid !== undefined) await chown(path, uid, uid)
}

function somebodyAnswers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect(path)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', (cause) => {
      if (['ENOENT', 'ECONNREFUSED', 'ENOTSOCK'].includes(codeOf(cause) ?? '')) resolve(false)
      else reject(cause)
    })
  })
}

/** Stops taking connections, lets requests under way finish, and closes what is still open after `graceMs`. */
export async function closeServer(
  server: Server & { readonly closeAllConnections?: () => void },
  graceMs = 2_000,
  clock: Clock = systemClock,
): Promise<void> {
  if (!server.listening) return
  const closed = once(server, 'close')
  server.close()
  const done = new AbortController()
  clock.sleep(graceMs, done.signal).then(
    () => {
      server.closeAllConnections?.()
      connections.get(server)?.forEach((socket) => socket.destroy())
    },
    () => {}, // Closed in time.
  )
  await closed
  done.abort()
}
