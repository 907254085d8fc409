/** A program that takes a stream on its standard input, given only as fast as it takes it. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { Fault } from '#base/fault.ts'
import { codeOf } from '../files.ts'
import type { Argv } from '../host.ts'

const lineBytes = 1_024
const mostLines = 20

export interface FedOptions {
  readonly signal?: AbortSignal | undefined
  /** A line it prints after which there is no use in going on. */
  readonly isHopeless?: (line: string) => boolean
}

export interface FedResult {
  /** Nothing when it was ended by a signal. */
  readonly code: number | null
  /** The first lines it printed as errors: the later ones follow from them. */
  readonly said: readonly string[]
}

/**
 * Runs it to its end, and takes it down when the pieces fail or the signal says so; when this resolves or throws, it
 * is gone. A program that ends early leaves the rest of the pieces; what that means is told by its exit code.
 * @throws whatever the pieces throw; the reason of the signal; Fault `failed` when it cannot be started
 */
export async function fed(
  [program, ...args]: Argv,
  pieces: AsyncIterable<Uint8Array>,
  { signal, isHopeless = () => false }: FedOptions = {},
): Promise<FedResult> {
  signal?.throwIfAborted()
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' }
  const child = spawn(program, args, { stdio: ['pipe', 'ignore', 'pipe'], env, cwd: '/', detached: true })
  const closed = once(child, 'close').catch((cause: unknown) => {
    if (codeOf(cause) !== 'ENOENT') throw new Fault('failed', `${program} could not be started`, { cause })
    throw new Fault('missing', `the program '${program}' is not installed`, {
      cause,
      remedy: 'Run `hako doctor` to see which system packages are missing.',
    })
  })
  closed.catch(() => {}) // Thrown to whoever awaits it.
  const kill = () => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
    // With all that it started: a jail that is killed while it is being made would leave one behind.
    process.kill(-child.pid, 'SIGKILL')
  }
  signal?.addEventListener('abort', kill)
  const said = linesOf(child.stderr, (line) => isHopeless(line) && kill())
  try {
    await give(child, pieces)
    await closed
  } finally {
    kill()
    await closed
    signal?.removeEventListener('abort', kill)
  }
  signal?.throwIfAborted()
  return { code: child.exitCode, said }
}

async function give(
  child: ChildProcessByStdio<Writable, null, Readable>,
  pieces: AsyncIterable<Uint8Array>,
): Promise<void> {
  const gone = new AbortController()
  child.once('close', () => gone.abort())
  // It may end before it has read everything; its exit code says why.
  child.stdin.on('error', () => gone.abort())
  for await (const piece of pieces) {
    if (gone.signal.aborted) return
    if (!child.stdin.write(piece)) await once(child.stdin, 'drain', { signal: gone.signal }).catch(() => {})
  }
  child.stdin.end()
}

/** Filled as they come. */
function linesOf(stream: Readable, onLine: (line: string) => void): readonly string[] {
  const said: string[] = []
  let open = ''
  const take = (line: string) => {
    if (said.length < mostLines) said.push(line)
    onLine(line)
  }
  stream.setEncoding('utf8').on('data', (part: string) => {
    const lines = (open + part).split('\n')
    open = (lines.pop() ?? '').slice(0, lineBytes)
    for (const line of lines) take(line.slice(0, lineBytes))
  })
  stream.once('end', () => {
    if (open !== '') take(open)
  })
  return said
}
