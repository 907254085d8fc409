/** Where a restore writes a disk to. It reads as zeros when the restore begins, so holes are left alone. */
import { DirectFile } from '#host/files/direct-file.ts'
import { asFileFault } from '#host/files.ts'
import type { NbdClient } from '#host/nbd/nbd.ts'

export interface BlockTarget extends AsyncDisposable {
  readonly sizeBytes: number
  /** Several writes may be under way at once; the bytes must not change until it resolves. */
  readonly write: (offset: number, bytes: Uint8Array) => Promise<void>
  /** Makes everything written survive power loss. */
  readonly flush: () => Promise<void>
}

/**
 * An existing raw image or block device, which must read as zeros.
 * @throws Fault when it cannot be opened
 */
export async function fileTarget(path: string, sizeBytes: number): Promise<BlockTarget> {
  const asFault = async <T>(act: () => Promise<T>): Promise<T> => {
    try {
      return await act()
    } catch (cause) {
      throw asFileFault(cause, path)
    }
  }
  const file = await asFault(() => DirectFile.open(path, 'write'))
  try {
    await asFault(() => grow(file, sizeBytes))
  } catch (fault) {
    await file[Symbol.asyncDispose]()
    throw fault
  }
  return {
    sizeBytes,
    write: (offset, bytes) => asFault(() => file.write(offset, bytes)),
    flush: () => asFault(() => file.handle.sync()),
    [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
  }
}

/** An export that may be written and reads as zeros. Takes the client over: disposing of the target closes it. */
export function nbdTarget(client: NbdClient): BlockTarget {
  return {
    sizeBytes: client.sizeBytes,
    write: (offset, bytes) => client.write(offset, bytes),
    flush: () => client.flush(),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}

async function grow({ handle }: DirectFile, sizeBytes: number): Promise<void> {
  const facts = await handle.stat()
  if (facts.isFile() && facts.size < sizeBytes) await handle.truncate(sizeBytes)
}
