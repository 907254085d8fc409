/**
 * An xterm on an X server that was started for it alone: what a terminal drawn as a screen is made of, however the
 * screen is served.
 *
 * xterm runs as a uid of its own that may do nothing, because it reads what anybody types and draws; only the program
 * on the terminal is root. It is handed the terminal open (`-S`), so it starts nothing itself. Without the X server it
 * ends, without it the terminal, and it when the program has ended.
 */
import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { Fault } from '#base/fault.ts'
import type { Argv, Host } from '../host.ts'
import { openPseudoTerminal } from '../native.ts'

export interface XtermOptions {
  readonly uid: number
  readonly width: number
  readonly height: number
  readonly host: Host
  /** Where it draws. */
  readonly x: { readonly DISPLAY: string; readonly XAUTHORITY: string }
  /** Puts a jail around it; absent: none. */
  readonly around?: (argv: Argv) => Argv
}

const startMs = 15_000
/** Of the one font every X server has. */
const letter = { width: 6, height: 13 } as const
const environment = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' }

/** @returns the xterm, on which this program runs as root @throws Fault `failed`, `timeout` */
export async function startXterm(argv: Argv, options: XtermOptions): Promise<ChildProcess> {
  const { uid, host, x, around = (it) => it } = options
  const { master, slave, path } = openPseudoTerminal()
  await using descriptors = new AsyncDisposableStack()
  descriptors.defer(() => closeSync(slave))
  await using undo = new AsyncDisposableStack()
  const wanted = around(unprivileged(uid, xtermArgv(options, path)))
  let xterm: ChildProcess
  try {
    // xterm first types the number of its window, which nobody asked for.
    await host.run(['stty', '-F', path, '-echo'])
    xterm = await started(wanted, ['ignore', 'ignore', 'ignore', master], x)
  } finally {
    closeSync(master)
  }
  undo.defer(() => void xterm.kill('SIGKILL'))
  // Not by Node's stream of a terminal: it opens this end once more, and keeps that open when it is closed.
  const reader = await started(['head', '--lines=1'], [slave, 'pipe', 'ignore'])
  undo.defer(() => void reader.kill('SIGKILL'))
  await firstLine(reader.stdout as Readable, 'xterm')
  await host.run(['stty', '-F', path, 'sane'])
  const env = { ...environment, TERM: 'xterm' }
  await spawned(spawn('setsid', ['--ctty', '--', ...argv], { stdio: [slave, slave, slave], cwd: '/', env }))
  undo.move()
  return xterm
}

function xtermArgv({ width, height }: XtermOptions, path: string): Argv {
  const [columns, rows] = [
    Math.max(1, Math.floor(width / letter.width)),
    Math.max(1, Math.floor(height / letter.height)),
  ]
  const look = ['-fn', 'fixed', '-fg', 'white', '-bg', 'black', '-b', '0', '-bw', '0', '+sb', '-u8']
  return ['xterm', ...look, '-geometry', `${columns}x${rows}+0+0`, `-S${path.slice(path.lastIndexOf('/') + 1)}/3`]
}

/** The program as this uid, which may do nothing, and no longer than whoever starts it. */
export function unprivileged(uid: number, argv: Argv): Argv {
  const rights = ['--clear-groups', '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all', '--pdeathsig=KILL']
  return ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, ...rights, ...argv]
}

/** @throws Fault `failed` when it cannot be started */
export async function started(
  [program, ...args]: Argv,
  stdio: StdioOptions,
  env: Readonly<Record<string, string>> = {},
): Promise<ChildProcess> {
  return spawned(spawn(program, args, { stdio, cwd: '/', env: { ...environment, ...env } }))
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

/** @throws Fault `failed` when there is none, `timeout` */
export async function firstLine(stream: Readable, who: string): Promise<string> {
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

/** A file of Xauthority: one cookie, for every display. */
export function authorityOf(cookie: Uint8Array): Buffer {
  const field = (bytes: Uint8Array) => Buffer.concat([Buffer.of(bytes.length >> 8, bytes.length & 255), bytes])
  const fields = [new Uint8Array(), new Uint8Array(), Buffer.from('MIT-MAGIC-COOKIE-1'), cookie]
  return Buffer.concat([Buffer.of(0xff, 0xff), ...fields.map(field)])
}
