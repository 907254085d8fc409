/** Where a restore writes a disk to. It reads as zeros when the restore begins, so holes are left alone. */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { blockBytes, openDirect } from '#host/direct-file.ts'
import { asFileFault, codeOf } from '#host/files.ts'

export interface BlockTarget extends AsyncDisposable {
  readonly sizeBytes: number
  /** Several writes may be under way at once; the bytes must not change until it resolves. */
  readonly write: (offset: number, bytes: Uint8Array) => Promise<void>
  /** Makes everything written survive power loss. */
  readonly flush: () => Promise<void>
}

/**
 * An existing raw image or block device, which must read as zeros. Whole blocks are written past the page cache where the
 * file system can do that.
 * @throws Fault when it cannot be opened
 */
export async function fileTarget(path: string, sizeBytes: number): Promise<BlockTarget> {
  try {
    await using undo = new AsyncDisposableStack()
    const handle = undo.use(await open(path, 'r+'))
    const facts = await handle.stat()
    if (facts.isFile() && facts.size < sizeBytes) await handle.truncate(sizeBytes)
    const direct = await openDirect(path, constants.O_WRONLY)
    if (direct) undo.use(direct)
    const opened = undo.move()
    return {
      sizeBytes,
      write: writerTo(path, handle, direct),
      async flush() {
        try {
          await handle.sync()
        } catch (cause) {
          throw asFileFault(cause, path)
        }
      },
      [Symbol.asyncDispose]: () => opened.disposeAsync(),
    }
  } catch (cause) {
    throw cause instanceof Fault ? cause : asFileFault(cause, path)
  }
}

function writerTo(path: string, handle: FileHandle, direct: FileHandle | undefined): BlockTarget['write'] {
  let isPlain = false
  const handleFor = (offset: number, length: number) =>
    direct && !isPlain && offset % blockBytes === 0 && length % blockBytes === 0 ? direct : handle
  return async (offset, bytes) => {
    for (let done = 0; done < bytes.length;) {
      const [at, left] = [offset + done, bytes.length - done]
      const used = handleFor(at, left)
      try {
        done += (await used.write(bytes, done, left, at)).bytesWritten
      } catch (cause) {
        if (used === handle || codeOf(cause) !== 'EINVAL') throw asFileFault(cause, path)
        // This file system takes direct writes of another shape only.
        isPlain = true
      }
    }
  }
}
