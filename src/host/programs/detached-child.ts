/**
 * A program that outlives this process and is told what to do on its standard input, a line at a time.
 *
 * Between start and the first line it waits, so that the caller can first write down who it is (its pid is known by
 * then). When the caller dies, the program reads the end of its input.
 */
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { Socket } from 'node:net'
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

/** Where the program has a word for whoever started it. Its own children do not get it: Node closes it for them. */
export const wordDescriptor = 3

export interface DetachedChild {
  readonly pid: number
  /** Writes a line to its standard input. A child that is gone takes nothing; `ended` tells. */
  readonly tell: (line: string) => void
  /** Closes its standard input. */
  readonly hangUp: () => void
  /** @param listener called when it has written something to `wordDescriptor`, whatever that is */
  readonly onWord: (listener: () => void) => void
  /** Reaches this process and no other, also when it has ended. */
  readonly signal: (signal: NodeJS.Signals) => void
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
      stdio: ['pipe', output, output, 'pipe'],
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
    const words = child.stdio[wordDescriptor]
    // It may end before it reads, or while it writes; `ended` says so.
    for (const stream of [stdin, words]) stream?.on('error', () => {})
    if (options.isAwaited !== true) {
      child.unref()
      // What reads keeps a process up, too.
      if (words instanceof Socket) words.unref()
    }
    return {
      pid,
      ended,
      tell: (line) => void stdin.write(`${line}\n`),
      hangUp: () => void stdin.end(),
      onWord: (listener) => void words?.on('data', listener),
      signal: (signal) => void child.kill(signal),
    }
  } finally {
    closeSync(output)
  }
}
