/**
 * A program that outlives this process and is told what to do on its standard input.
 *
 * Between start and `give` it waits, so that the caller can first write down who it is (its pid is known by
 * then). When the caller dies before it gave anything, the program reads the end of its input instead.
 */
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { Fault } from '#base/fault.ts'
import type { Argv } from '../host.ts'

export interface DetachedChildOptions {
  /** Receives standard output and error, appended. */
  readonly outputFile: string
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>
  /** This process has nothing else to do before the child has ended, and must not end for that. Default: false. */
  readonly isAwaited?: boolean
}

export interface DetachedChild {
  readonly pid: number
  /** Writes the text to its standard input and closes that. A child that is gone takes nothing; `ended` tells. */
  readonly give: (text: string) => void
  /** Resolves when it has ended, however. */
  readonly ended: Promise<void>
}

/** Starts the program in a session of its own. @throws Fault `failed` when it cannot be started. */
export async function startDetachedChild(argv: Argv, options: DetachedChildOptions): Promise<DetachedChild> {
  const [program, ...args] = argv
  const output = openSync(options.outputFile, 'a', 0o600)
  try {
    const child = spawn(program, args, {
      detached: true,
      stdio: ['pipe', output, output],
      cwd: '/',
      env: { ...options.env },
    })
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', (cause) => {
        reject(new Fault('failed', `${program} could not be started: ${cause.message}`, { cause }))
      })
    })
    const { pid, stdin } = child
    if (pid === undefined || stdin === null) throw new Fault('failed', `${program} has no pid`)
    stdin.on('error', () => {}) // It may end before it reads; `ended` says so.
    if (options.isAwaited !== true) child.unref()
    return { pid, ended, give: (text) => void stdin.end(text) }
  } finally {
    closeSync(output)
  }
}
