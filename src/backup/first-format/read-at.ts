/** Reads of a file that must be whole. */
import type { FileHandle } from 'node:fs/promises'

/** Exactly `length` bytes. @throws Error at the end of the file */
export async function readAt(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done)
    if (bytesRead === 0) throw new Error(`the file ends ${length - done} bytes early`)
    done += bytesRead
  }
  return bytes
}
