/**
 * A terminal as a screen: an X server that speaks VNC on a unix socket, with one xterm on it.
 *
 * Both run as a uid of their own that may do nothing, because they read what anybody types and draws; only the
 * program on the terminal is root. xterm is handed the terminal open (`-S`), so it starts nothing itself. All three
 * hang together: without a client the X server ends at once, without it xterm, without xterm the terminal; and
 * they do not outlive this process.
 */
import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync } from 'node:fs'
import { access, chown, mkdir, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { ReadStream } from 'node:tty'
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { makeDirectory } from './files.ts'
import type { Argv, Host } from './host.ts'
import { openPseudoTerminal, type PseudoTerminal } from './native.ts'
import { connectToProcess } from './unix-peer.ts'

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

const startMs = 15_000
/** Of the one font every X server has. */
const letter = { width: 6, height: 13 } as const
const environment = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' }

/** @returns the connection to the screen; closing it ends everything. @throws Fault `missing`, `failed`, `timeout` */
export async function startVncTerminal(argv: Argv, options: VncTerminalOptions): Promise<Socket> {
  const { directory, uid, host } = options
  await using undo = new AsyncDisposableStack()
  // Others than root pass through on their way.
  await makeDirectory(dirname(directory))
  await mkdir(directory, { mode: 0o700 })
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  await writeFile(`${directory}/cookie`, authorityOf(options.random.bytes(16)), { mode: 0o600 })
  for (const path of [`${directory}/cookie`, directory]) await chown(path, uid, uid)
  const server = await started(serverArgv(options), uid, ['ignore', 'ignore', 'ignore', 'pipe'])
  undo.defer(() => void server.kill('SIGKILL'))
  const display = await firstLine(server.stdio[3] as Readable, 'the X server (Xtigervnc)')
  const terminal = openPseudoTerminal()
  await using descriptors = new AsyncDisposableStack()
  descriptors.defer(() => closeBoth(terminal))
  // xterm first types the number of its window, which nobody asked for.
  await host.run(['stty', '-F', terminal.path, '-echo'])
  const x = { DISPLAY: `:${display}`, XAUTHORITY: `${directory}/cookie` }
  const { master, slave } = terminal
  const xterm = await started(xtermArgv(options, terminal.path), uid, ['ignore', 'ignore', 'ignore', master], x)
  undo.defer(() => void xterm.kill('SIGKILL'))
  const typed = new ReadStream(openSync(terminal.path, constants.O_RDWR | constants.O_NOCTTY))
  typed.on('error', () => {}) // xterm has ended; the wait for its line tells.
  descriptors.defer(() => void typed.destroy())
  await firstLine(typed, 'xterm')
  await host.run(['stty', '-F', terminal.path, 'sane'])
  const env = { ...environment, TERM: 'xterm' }
  await spawned(spawn('setsid', ['--ctty', '--', ...argv], { stdio: [slave, slave, slave], cwd: '/', env }))
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

function xtermArgv({ width, height }: VncTerminalOptions, path: string): Argv {
  const [columns, rows] = [
    Math.max(1, Math.floor(width / letter.width)),
    Math.max(1, Math.floor(height / letter.height)),
  ]
  const look = ['-fn', 'fixed', '-fg', 'white', '-bg', 'black', '-b', '0', '-bw', '0', '+sb', '-u8']
  return ['xterm', ...look, '-geometry', `${columns}x${rows}+0+0`, `-S${path.slice(path.lastIndexOf('/') + 1)}/3`]
}

async function started(
  [program, ...args]: Argv,
  uid: number,
  stdio: StdioOptions,
  env: Readonly<Record<string, string>> = {},
): Promise<ChildProcess> {
  const rights = ['--clear-groups', '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all', '--pdeathsig=KILL']
  const child = spawn('setpriv', [`--reuid=${uid}`, `--regid=${uid}`, ...rights, program, ...args], {
    stdio,
    cwd: '/',
    env: { ...environment, ...env },
  })
  return spawned(child)
}

async function spawned(child: ChildProcess): Promise<ChildProcess> {
  try {
    await once(child, 'spawn')
  } catch (cause) {
    throw new Fault('failed', 'a program of the terminal could not be started', { cause })
  }
  child.on('error', () => {})
  return child
}

async function firstLine(stream: Readable, who: string): Promise<string> {
  const lines = createInterface({ input: stream })
  try {
    const signal = AbortSignal.timeout(startMs)
    const ended = once(lines, 'close', { signal }).then(() => {
      throw new Fault('failed', `${who} ended at once`)
    })
    const [line] = (await Promise.race([once(lines, 'line', { signal }), ended])) as [string]
    return line.trim()
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    throw new Fault('timeout', `${who} did not start within ${startMs / 1000} s`, { cause })
  } finally {
    lines.close()
  }
}

function closeBoth({ master, slave }: PseudoTerminal): void {
  closeSync(slave)
  closeSync(master)
}

/** A file of Xauthority: one cookie, for every display. */
function authorityOf(cookie: Uint8Array): Buffer {
  const field = (bytes: Uint8Array) => Buffer.concat([Buffer.of(bytes.length >> 8, bytes.length & 255), bytes])
  const fields = [new Uint8Array(), new Uint8Array(), Buffer.from('MIT-MAGIC-COOKIE-1'), cookie]
  return Buffer.concat([Buffer.of(0xff, 0xff), ...fields.map(field)])
}
