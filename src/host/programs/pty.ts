/**
 * A program on a pseudo terminal of its own: what a person at a keyboard would have started.
 *
 * It leads a session and has the terminal as its controlling one, so Ctrl-C reaches what runs in front and
 * closing the terminal ends everything on it that does not ask to stay. That holds for `kill -9` of this process
 * as well: its end of the terminal closes with it. Rejected: `script` and `socat`, which copy every byte once
 * more and cannot be told a new size.
 */
import { spawn } from 'node:child_process'
import { closeSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import { ReadStream } from 'node:tty'
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Argv } from '../host.ts'
import { openPseudoTerminal, resizePseudoTerminal } from '../native.ts'

export interface PtyOptions {
  /** Beside PATH and TERM. */
  readonly env?: Readonly<Record<string, string>>
}

export interface Pty {
  readonly pid: number
  /** What the program prints, and what is typed. Closes when nobody has the terminal open any more. */
  readonly stream: Duplex
  readonly resize: (columns: number, rows: number) => void
  /** Resolves when the program has ended, however. */
  readonly ended: Promise<void>
}

const environment = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  TERM: 'xterm-256color',
  LANG: 'C.UTF-8',
}
const first = { columns: 80, rows: 24 } as const
/** After the hang-up a program may put its things away. */
const hangUpMs = 2_000

/** Destroying `stream` hangs up. @throws Fault `missing`, `failed`, `unavailable` */
export async function startOnPty(argv: Argv, options: PtyOptions = {}): Promise<Pty> {
  const { master, slave } = openPseudoTerminal()
  let child: ReturnType<typeof spawn>
  try {
    resizePseudoTerminal(master, first.columns, first.rows)
    child = spawn('setsid', ['--ctty', '--', ...argv], {
      stdio: [slave, slave, slave],
      cwd: '/',
      env: { ...environment, ...options.env },
    })
  } catch (error) {
    closeSync(master)
    throw error
  } finally {
    closeSync(slave)
  }
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', (cause) => {
      closeSync(master)
      reject(new Fault('failed', `a program could not be started on a terminal: ${cause.message}`, { cause }))
    })
  })
  child.on('error', () => {}) // A signal that came too late.
  return attached(child, master, ended)
}

function attached(child: ReturnType<typeof spawn>, master: number, ended: Promise<void>): Pty {
  const { pid } = child
  if (pid === undefined) throw new Fault('failed', 'a program on a terminal has no pid')
  const stream = new ReadStream(master)
  let isOpen = true
  // EIO is the kernel's way to say that the last program on the terminal has ended; `close` tells everybody.
  stream.on('error', () => stream.destroy())
  stream.once('close', () => {
    isOpen = false
    const done = new AbortController()
    void ended.then(() => done.abort())
    systemClock.sleep(hangUpMs, done.signal).then(
      () => child.kill('SIGKILL'),
      () => {}, // It followed.
    )
  })
  return {
    pid,
    stream,
    ended,
    resize: (columns, rows) => {
      if (isOpen) resizePseudoTerminal(master, columns, rows)
    },
  }
}
