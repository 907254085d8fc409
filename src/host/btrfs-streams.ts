/** Whole subvolumes as streams: `btrfs send` and `btrfs receive`, with nothing between them but this process. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Fault } from '#base/fault.ts'
import { KiB } from '#base/bytes.ts'
import { fed } from './feed.ts'

const errorBytes = 4 * KiB

/**
 * The stream of a subvolume that is only read, taken from the tool as fast as it is asked for. It throws instead of
 * ending when something is missing; leaving off ends the tool.
 */
export async function* sendSubvolume(path: string, signal?: AbortSignal): AsyncGenerator<Buffer> {
  signal?.throwIfAborted()
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' }
  const child = spawn('btrfs', ['send', '--quiet', path], { stdio: ['ignore', 'pipe', 'pipe'], env, cwd: '/' })
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
    if (child.exitCode !== 0) throw failed('send', said.split('\n'))
  } finally {
    kill()
    await closed.catch(() => {})
    signal?.removeEventListener('abort', kill)
  }
}

/**
 * Makes the subvolume of a stream in a folder, under the name it was sent by; it can only be read. What it had begun
 * remains when this fails. Nothing is written outside of that folder, whatever the stream says.
 * @throws Fault `failed`, `exhausted`; whatever the stream throws
 */
export async function receiveSubvolume(
  folder: string,
  stream: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): Promise<void> {
  const { code, said } = await fed(['btrfs', 'receive', '--quiet', '--chroot', folder], stream, { signal })
  if (code === 0) return
  if (said.some((line) => /No space left on device|Disk quota exceeded/.test(line))) {
    throw new Fault('exhausted', `no space left on the device of '${folder}'`, { cause: { said } })
  }
  throw failed('receive', said)
}

function failed(verb: string, said: readonly string[]): Fault {
  const complaint = said.find((line) => line.startsWith('ERROR:'))?.replace(/^ERROR:\s*/, '')
  return new Fault('failed', `btrfs ${verb}: ${complaint ?? 'it was ended'}`, { cause: { said } })
}
