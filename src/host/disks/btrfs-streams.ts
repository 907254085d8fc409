/** Whole subvolumes as streams: `btrfs send` and `btrfs receive`, with nothing between them but this process. */
import { Fault } from '#base/fault.ts'
import { fed } from '../programs/feed.ts'
import { streamOf } from '../programs/stream-of.ts'

/**
 * The stream of a subvolume that is only read, taken from the tool as fast as it is asked for. It throws instead of
 * ending when something is missing; leaving off ends the tool.
 */
export function sendSubvolume(path: string, signal?: AbortSignal): AsyncGenerator<Buffer> {
  return streamOf(['btrfs', 'send', '--quiet', path], (said) => failed('send', said), signal)
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
