/**
 * The real host: runs programs. The only file, with `spawnDetached` below, that starts processes.
 *
 * No shell, a minimal environment, a time limit always (`limits.exec` where none is given), and bounded
 * output: a program that prints more is killed rather than buffered.
 */
import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { basename } from 'node:path'
import { StringDecoder } from 'node:string_decoder'
import { Fault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { passing } from '#base/trace.ts'
import type { Argv, Host, RunOptions, RunResult } from './host.ts'

/** Where programs are found. */
export const searchPath: readonly string[] = [
  '/usr/local/sbin',
  '/usr/local/bin',
  '/usr/sbin',
  '/usr/bin',
  '/sbin',
  '/bin',
]

const environment = {
  PATH: searchPath.join(':'),
  LC_ALL: 'C.UTF-8',
  HOME: '/root',
}

/** The machine this process runs on. */
export function machine(): Host {
  return { run }
}

function run(argv: Argv, options: RunOptions = {}): Promise<RunResult> {
  return passing('program', basename(argv[0]), () => runNow(argv, options))
}

async function runNow(argv: Argv, options: RunOptions): Promise<RunResult> {
  const [program, ...args] = argv
  const { timeoutMs = limits.exec.timeoutMs, signal, input, okCodes = [0], cwd, env = {} } = options
  if (signal?.aborted) throw new Fault('aborted', `${program}: interrupted before it started`)
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...environment, ...env },
    ...(cwd === undefined ? {} : { cwd }),
  })
  const ending = untilEnd(child, program, timeoutMs, signal)
  child.stdin.on('error', () => {}) // The program may end before it read its input; its exit code says why.
  child.stdin.end(input)
  const outputs = Promise.all([
    collect(child, child.stdout, program, options),
    collect(child, child.stderr, program, options),
  ])
  const [code, [stdout, stderr]] = await Promise.all([ending, outputs])
  if (!okCodes.includes(code)) {
    const said = lastLine(stderr) || lastLine(stdout) || 'it said nothing'
    throw new Fault('failed', `${program} failed with exit code ${code}: ${said}`, { cause: { argv, stderr } })
  }
  return { code, stdout, stderr }
}

/** Resolves with the exit code; kills on time-out and abort and says so. */
function untilEnd(child: ChildProcess, program: string, timeoutMs: number, signal?: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    let fault: Fault | undefined
    const kill = (reason: Fault) => {
      fault ??= reason
      child.kill('SIGKILL')
    }
    const timer = setTimeout(
      () => kill(new Fault('timeout', `${program}: not done within ${timeoutMs / 1000} s`)),
      timeoutMs,
    )
    const onAbort = () => kill(new Fault('aborted', `${program}: interrupted`))
    signal?.addEventListener('abort', onAbort)
    const done = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
    child.once('error', (cause: NodeJS.ErrnoException) => {
      done()
      const isAbsent = cause.code === 'ENOENT'
      reject(
        isAbsent
          ? notInstalled(program, cause)
          : new Fault('failed', `${program} could not be started: ${cause.message}`, { cause }),
      )
    })
    child.once('exit', () => {
      if (fault === undefined) return
      done()
      reject(fault)
      // A grandchild may live on and hold the pipes open; nobody waits for it.
      child.stdout?.destroy()
      child.stderr?.destroy()
    })
    child.once('close', (code, killedBy) => {
      done()
      if (fault) reject(fault)
      else if (code === null) reject(new Fault('failed', `${program} was ended by ${killedBy}`))
      else resolve(code)
    })
  })
}

function notInstalled(program: string, cause: unknown): Fault {
  return new Fault('missing', `the program '${program}' is not installed`, {
    cause,
    remedy: 'Run `hako doctor` to see which system packages are missing.',
  })
}

async function collect(
  child: ChildProcess,
  stream: NodeJS.ReadableStream,
  program: string,
  options: RunOptions,
): Promise<string> {
  const { outputBytes = limits.exec.outputBytes, onLine } = options
  const parts: Buffer[] = []
  const decoder = new StringDecoder('utf8') // A character may be cut in two by the pipe.
  let [size, open] = [0, '']
  for await (const part of stream as AsyncIterable<Buffer>) {
    size += part.length
    if (size > outputBytes) {
      child.kill('SIGKILL')
      throw new Fault('exhausted', `${program} printed more than ${outputBytes} bytes`)
    }
    parts.push(part)
    if (!onLine) continue
    const lines = (open + decoder.write(part)).split(/[\n\r]/) // A carriage return ends a progress report.
    open = lines.pop() ?? ''
    for (const line of lines) onLine(line)
  }
  if (onLine && open !== '') onLine(open)
  return Buffer.concat(parts).toString('utf8')
}

function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1)?.trim() ?? ''
}

export interface DetachedOptions {
  /** Receives standard output and error, appended. */
  readonly outputFile: string
  /** Open descriptors the program inherits as 3, 4, … in this order. */
  readonly descriptors?: readonly number[]
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
}

/**
 * Starts a program that outlives this process, in a session of its own, and returns its pid.
 * Whether it stays up is for the caller to find out (a socket, a pid that still runs).
 */
export async function spawnDetached(argv: Argv, options: DetachedOptions): Promise<number> {
  const [program, ...args] = argv
  const output = openSync(options.outputFile, 'a', 0o600)
  try {
    const stdio: StdioOptions = ['ignore', output, output, ...(options.descriptors ?? [])]
    const child = spawn(program, args, {
      detached: true,
      stdio,
      env: { ...environment, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    })
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', (cause: NodeJS.ErrnoException) => {
        reject(
          cause.code === 'ENOENT'
            ? notInstalled(program, cause)
            : new Fault('failed', `${program} could not be started: ${cause.message}`, { cause }),
        )
      })
    })
    child.unref()
    if (child.pid === undefined) throw new Fault('failed', `${program} has no pid`)
    return child.pid
  } finally {
    closeSync(output)
  }
}
