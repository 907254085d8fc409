/** Where a restore writes a disk to. It reads as zeros when the restore begins, so holes are left alone. */
import { open } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'

export interface BlockTarget extends AsyncDisposable {
  readonly sizeBytes: number
  /** Several writes may be under way at once; the bytes must not change until it resolves. */
  readonly write: (offset: number, bytes: Uint8Array) => Promise<void>
  /** Makes everything written survive power loss. */
  readonly flush: () => Promise<void>
}

/**
 * An existing raw image or block device, which must read as zeros.
 * @throws Fault `conflict` when a file holds data already
 */
export async function fileTarget(path: string, sizeBytes: number): Promise<BlockTarget> {
  try {
    const handle = await open(path, 'r+')
    try {
      const facts = await handle.stat()
      if (facts.isFile() && facts.size < sizeBytes) await handle.truncate(sizeBytes)
    } catch (cause) {
      await handle.close()
      throw cause
    }
    return {
      sizeBytes,
      async write(offset, bytes) {
        let done = 0
        try {
          while (done < bytes.length) {
            done += (await handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
          }
        } catch (cause) {
          throw asFileFault(cause, path)
        }
      },
      async flush() {
        try {
          await handle.sync()
        } catch (cause) {
          throw asFileFault(cause, path)
        }
      },
      [Symbol.asyncDispose]: () => handle.close(),
    }
  } catch (cause) {
    throw cause instanceof Fault ? cause : asFileFault(cause, path)
  }
}
