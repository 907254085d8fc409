/**
 * A terminal as a screen: an X server that speaks VNC on a unix socket, with one xterm on it.
 *
 * Both run as a uid of their own that may do nothing. All three hang together: without a client the X server ends at
 * once, without it xterm, without xterm the terminal; and they do not outlive this process.
 */
import { constants } from 'node:fs'
import { access, chown, mkdir, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Readable } from 'node:stream'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { makeDirectory } from '../files.ts'
import type { Argv, Host } from '../host.ts'
import { connectToProcess } from '../programs/unix-peer.ts'
import { authorityOf, firstLine, started, startXterm, unprivileged } from './x-terminal.ts'

export interface VncTerminalOptions {
  /** Made, and removed at the end. */
  readonly directory: string
  /** Of X server and xterm. */
  readonly uid: number
  readonly width: number
  readonly height: number
  readonly random: Random
  readonly host: Host
}

/** @returns the connection to the screen; closing it ends everything. @throws Fault `missing`, `failed`, `timeout` */
export async function startVncTerminal(argv: Argv, options: VncTerminalOptions): Promise<Socket> {
  const { directory, uid } = options
  await using undo = new AsyncDisposableStack()
  // Others than root pass through on their way.
  await makeDirectory(dirname(directory))
  await mkdir(directory, { mode: 0o700 })
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  await writeFile(`${directory}/cookie`, authorityOf(options.random.bytes(16)), { mode: 0o600 })
  for (const path of [`${directory}/cookie`, directory]) await chown(path, uid, uid)
  const server = await started(unprivileged(uid, serverArgv(options)), ['ignore', 'ignore', 'ignore', 'pipe'])
  undo.defer(() => void server.kill('SIGKILL'))
  const display = await firstLine(server.stdio[3] as Readable, 'the X server (Xtigervnc)')
  const x = { DISPLAY: `:${display}`, XAUTHORITY: `${directory}/cookie` }
  const xterm = await startXterm(argv, { ...options, x })
  undo.defer(() => void xterm.kill('SIGKILL'))
  const { pid = 0 } = server
  const socket = await connectToProcess(`${directory}/vnc.sock`, { pid, uid })
  const release = undo.move()
  socket.once('close', () => void release.disposeAsync())
  return socket
}

/** @throws Fault `missing` naming the program that is not there */
export async function requireVncTerminal(): Promise<void> {
  for (const program of ['Xtigervnc', 'xterm']) {
    await access(`/usr/bin/${program}`, constants.X_OK).catch((cause: unknown) => {
      throw new Fault('missing', `the program '${program}' is not installed`, {
        cause,
        remedy:
          'A terminal drawn as a screen needs it: apt-get install tigervnc-standalone-server xterm. termproxy does not.',
      })
    })
  }
}

function serverArgv({ directory, width, height }: VncTerminalOptions): Argv {
  const vnc = ['-rfbport', '-1', '-rfbunixpath', `${directory}/vnc.sock`, '-SecurityTypes', 'None']
  const ends = ['-terminate', '-MaxDisconnectionTime', '30']
  const screen = ['-geometry', `${width}x${height}`, '-depth', '24', '-desktop', 'terminal']
  const x = ['-displayfd', '3', '-nolisten', 'tcp', '-auth', `${directory}/cookie`]
  return ['Xtigervnc', ...x, ...vnc, ...ends, ...screen]
}
