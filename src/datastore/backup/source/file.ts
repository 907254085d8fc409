/**
 * A raw image file as a source. Holes come from `qemu-img map`, which asks the file
 * system and needs nothing but the program; where it cannot tell, everything is data and zeros are
 * found by looking.
 */
import { Fault } from '#base/fault.ts'
import { DirectFile } from '#host/files/direct-file.ts'
import { asFileFault } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { mapImage } from '#host/qemu/qemu-img.ts'
import type { BlockSource, Extent } from '../block-source.ts'

/**
 * @param host runs `qemu-img`; without it the whole file counts as data
 * @throws Fault `missing` when there is no such file
 */
export async function fileSource(path: string, host?: Host): Promise<BlockSource> {
  const file = await DirectFile.open(path, 'read').catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  const sizeBytes = await sizeOf(file, path).catch(async (fault: unknown) => {
    await file[Symbol.asyncDispose]()
    throw fault
  })
  return {
    sizeBytes,
    async *extents() {
      if (sizeBytes === 0) return
      if (!host) yield { offset: 0, length: sizeBytes, isZero: false }
      else yield* clip(await mapImage(host, path, 'raw', { offset: 0, length: sizeBytes }), sizeBytes)
    },
    read: (offset, into) => file.read(offset, into),
    [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
  }
}

async function sizeOf(file: DirectFile, path: string): Promise<number> {
  const facts = await file.handle.stat()
  // A block device has no size in its inode; it is read through an export instead.
  if (facts.isFile()) return facts.size
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
