/** What a program prints, as a stream. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { KiB } from '#base/bytes.ts'
import type { Argv } from '../host.ts'

const errorBytes = 4 * KiB

/**
 * Pieces of the program's output, which is read only as fast as they are taken. It throws instead of ending when
 * something is missing; leaving off ends the program.
 * @param failed the error to throw when it fails, from the lines it printed as errors
 * @throws what `failed` makes; the reason of the signal
 */
export async function* streamOf(
  [program, ...args]: Argv,
  failed: (said: readonly string[]) => Error,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  signal?.throwIfAborted()
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' }
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env, cwd: '/' })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (part: string) => {
    said = (said + part).slice(-errorBytes)
  })
  const closed = once(child, 'close')
  closed.catch(() => {}) // Thrown to whoever awaits it.
  const kill = () => void child.kill('SIGKILL')
  signal?.addEventListener('abort', kill)
  try {
    yield* child.stdout as AsyncIterable<Buffer>
    await closed
    signal?.throwIfAborted()
    if (child.exitCode !== 0) throw failed(said.split('\n'))
  } finally {
    kill()
    await closed.catch(() => {})
    signal?.removeEventListener('abort', kill)
  }
}
