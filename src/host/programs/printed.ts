/** A program whose output is taken as it comes, and only as fast as it is taken. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { PassThrough, type Readable } from 'node:stream'
import { Fault } from '#base/fault.ts'
import type { Argv } from '../host.ts'

export interface PrintedOptions {
  readonly signal?: AbortSignal | undefined
  /** What it means when it ends badly. */
  readonly refusal: string
}

const errorBytes = 1_024

/**
 * Resolves when it has printed the first bytes, or has ended. Later the output is broken off when it ends badly.
 * @throws Fault `failed` with the first it said, when it ends badly before it has printed anything
 */
export async function printed([program, ...args]: Argv, { signal, refusal }: PrintedOptions): Promise<Readable> {
  signal?.throwIfAborted()
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' }
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env, cwd: '/' })
  const kill = () => void child.kill('SIGKILL')
  signal?.addEventListener('abort', kill)
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (part: string) => (said = (said + part).slice(0, errorBytes)))
  const ended = once(child, 'close').then(
    () => child.exitCode === 0,
    () => false,
  )
  void ended.finally(() => signal?.removeEventListener('abort', kill))
  const fault = () => new Fault('failed', `${refusal}: ${said.split('\n', 1)[0] || 'it was ended'}`)
  const { stdout } = child
  await Promise.race([once(stdout, 'readable'), ended])
  if (stdout.readableLength === 0 && !(await ended)) throw fault()
  const bytes = new PassThrough()
  stdout.on('error', (error) => bytes.destroy(error)).pipe(bytes, { end: false })
  void ended.then((isWell) => (isWell ? bytes.end() : bytes.destroy(fault())))
  bytes.once('close', kill)
  return bytes
}
