/** A disk of a backup from its start to its end, zeros and all, for whoever can only be handed one byte after the other. */
import { KiB } from '#base/bytes.ts'
import { readAhead } from '../window.ts'
import type { BackupReader } from './reader.ts'

const runsAhead = 4
const zeros = Buffer.alloc(256 * KiB)

/** @param onProgress told how far it is. @throws Fault `damaged` naming pack and chunk, `missing` */
export async function* diskContent(
  reader: BackupReader,
  name: string,
  onProgress: (doneBytes: number) => void = () => {},
): AsyncGenerator<Buffer> {
  const { sizeBytes } = reader.disk(name)
  let at = 0
  for await (const parts of readAhead(reader.runs(name), runsAhead, (read) => read())) {
    for (const { offset, content } of parts) {
      yield* zerosOf(offset - at)
      yield content
      at = offset + content.length
    }
    onProgress(at)
  }
  yield* zerosOf(sizeBytes - at)
}

function* zerosOf(length: number): Generator<Buffer> {
  for (let left = length; left > 0; left -= zeros.length) yield zeros.subarray(0, Math.min(left, zeros.length))
}
