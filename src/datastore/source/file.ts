/**
 * A raw image file as a source. Holes come from `qemu-img map`, which asks the file
 * system and needs nothing but the program; where it cannot tell, everything is data and zeros are
 * found by looking.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { mapImage } from '#host/qemu-img.ts'
import type { BlockSource, Extent } from '../block-source.ts'

/**
 * @param host runs `qemu-img`; without it the whole file counts as data
 * @throws Fault `missing` when there is no such file
 */
export async function fileSource(path: string, host?: Host): Promise<BlockSource> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  const sizeBytes = await sizeOf(handle, path)
  return {
    sizeBytes,
    async *extents() {
      if (sizeBytes === 0) return
      if (!host) yield { offset: 0, length: sizeBytes, isZero: false }
      else yield* clip(await mapImage(host, path, 'raw', { offset: 0, length: sizeBytes }), sizeBytes)
    },
    async read(offset, into) {
      for (let done = 0; done < into.length;) {
        const { bytesRead } = await handle.read(into, done, into.length - done, offset + done)
        if (bytesRead === 0) throw new Error(`'${path}' ends ${into.length - done} bytes early`)
        done += bytesRead
      }
    },
    [Symbol.asyncDispose]: () => handle.close(),
  }
}

async function sizeOf(handle: FileHandle, path: string): Promise<number> {
  const facts = await handle.stat()
  // A block device has no size in its inode; it is read through an export instead.
  if (facts.isFile()) return facts.size
  await handle.close()
  throw new Fault('invalid', `'${path}' is not a file`)
}

/** An image that is no multiple of a sector is mapped a little too long. */
function* clip(extents: readonly Extent[], sizeBytes: number): Generator<Extent> {
  let end = 0
  for (const { offset, length, isZero } of extents) {
    const cut = Math.min(length, sizeBytes - offset)
    if (cut > 0) yield { offset, length: cut, isZero }
    end = Math.max(end, offset + cut)
  }
  if (end < sizeBytes) yield { offset: end, length: sizeBytes - end, isZero: false }
}
