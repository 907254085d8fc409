/**
 * A program that turns one stream into another: an open file on its standard input, what it prints as pieces.
 *
 * What it reads may come from anywhere, so it runs as nobody, without a way to any right, and ends with
 * whoever started it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { FileHandle } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { KiB } from '#base/bytes.ts'
import type { Argv } from '../host.ts'

const nobody = 65_534
const errorBytes = 64 * KiB
const powerless = [
  'setpriv',
  '--pdeathsig=KILL',
  `--reuid=${nobody}`,
  `--regid=${nobody}`,
  '--clear-groups',
  '--no-new-privs',
  '--inh-caps=-all',
  '--bounding-set=-all',
]

/**
 * Pieces of the program's output, which is read only as fast as they are taken. Leaving off ends the program.
 * @throws Fault `missing` when it is not installed, `damaged` in its own words when it fails; the reason of the signal
 */
export async function* filtered(
  [program, ...args]: Argv,
  input: FileHandle,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  signal?.throwIfAborted()
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' }
  const child = spawn('setpriv', [...powerless.slice(1), program, ...args], {
    stdio: [input.fd, 'pipe', 'pipe'],
    env,
    cwd: '/',
  })
  const ended = endOf(child)
  const kill = () => void child.kill('SIGKILL')
  signal?.addEventListener('abort', kill)
  try {
    yield* child.stdout as AsyncIterable<Buffer>
    const { code, said } = await ended
    signal?.throwIfAborted()
    if (code === 127) {
      throw new Fault('missing', `the program '${program}' is not installed`, {
        remedy: 'Run `hako doctor` to see which system packages are missing.',
      })
    }
    if (code !== 0) throw new Fault('damaged', `${program}: ${said || `exit code ${code}`}`)
  } finally {
    kill()
    await ended
    signal?.removeEventListener('abort', kill)
  }
}

async function endOf(child: ChildProcess): Promise<{ code: number | null; said: string }> {
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (part: string) => {
    said = (said + part).slice(-errorBytes)
  })
  const closed = once(child, 'close').catch((cause: unknown) => {
    throw new Fault('failed', 'a program could not be started', { cause })
  })
  closed.catch(() => {}) // Thrown to whoever awaits it.
  await closed
  return { code: child.exitCode, said: said.trimEnd().split('\n').at(-1)?.trim() ?? '' }
}
