/**
 * A program that lives beside this process and no longer: its standard input is a pipe that stays open as
 * long as this process does, so that it notices our end even when we are killed.
 */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { Fault } from '#base/fault.ts'
import type { Argv } from '../host.ts'

export interface CompanionOptions {
  /** Each line of standard output. */
  readonly onLine: (line: string) => void
  /** Each line of standard error. */
  readonly onErrorLine: (line: string) => void
  /** The whole environment beside PATH. */
  readonly env?: Readonly<Record<string, string>>
  /** Open files it gets as descriptors 3, 4, ... */
  readonly files?: readonly number[]
}

export interface Companion {
  readonly pid: number
  /** Writes to its standard input, which stays open. The place for secrets. */
  readonly give: (text: string) => void
  readonly kill: (signal: 'SIGTERM' | 'SIGKILL') => void
  /** Resolves when it has ended, however. */
  readonly ended: Promise<void>
}

/** @throws Fault `missing` when the program is not installed, `failed` when it cannot be started */
export async function startCompanion(argv: Argv, options: CompanionOptions): Promise<Companion> {
  const [program, ...args] = argv
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe', ...(options.files ?? [])],
    cwd: '/',
    env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', ...options.env },
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', (cause: NodeJS.ErrnoException) => {
      const isAbsent = cause.code === 'ENOENT'
      const text = isAbsent ? `the program '${program}' is not installed` : `${program} could not be started`
      reject(new Fault(isAbsent ? 'missing' : 'failed', text, { cause }))
    })
  })
  const { pid, stdin, stdout, stderr } = child
  // All three are pipes, as asked for above.
  if (pid === undefined || !stdin || !stdout || !stderr) throw new Fault('failed', `${program} has no pid`)
  child.on('error', () => {}) // A signal that came too late; `ended` tells all there is to know.
  stdin.on('error', () => {}) // It may end before it has read everything.
  createInterface({ input: stdout }).on('line', options.onLine)
  createInterface({ input: stderr }).on('line', options.onErrorLine)
  return { pid, ended, give: (text) => void stdin.write(text), kill: (signal) => void child.kill(signal) }
}
