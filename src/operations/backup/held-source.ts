/**
 * A disk of a running guest as it was at one moment, read through QEMU.
 *
 * QEMU 7.2 mistakes what it has copied aside for what the guest has written since, wherever a request begins in a part
 * that was copied and ends in one that was not: reads then show the present, and so does what is said of zeros. So no
 * read reaches beyond one block of what is copied at once, and zeros are believed only where the image of what was
 * copied, asked later, has nothing else either.
 */
import type { BlockSource, Extent } from '#datastore/backup/block-source.ts'
import { NbdClient, type NbdOptions } from '#host/nbd/nbd.ts'
import { copiedBytes } from './point-in-time.ts'

/**
 * @param socket of QEMU's server
 * @param names of the exports: of the moment, and of the image old content is copied to
 */
export async function heldSource(
  socket: string,
  names: { readonly moment: string; readonly copied: string },
  options: Omit<NbdOptions, 'exportName' | 'unitBytes'>,
): Promise<BlockSource> {
  await using undo = new AsyncDisposableStack()
  const moment = undo.use(
    await NbdClient.connect(socket, { ...options, exportName: names.moment, unitBytes: copiedBytes }),
  )
  const copied = undo.use(await NbdClient.connect(socket, { ...options, bitmap: undefined, exportName: names.copied }))
  const release = undo.move()
  return {
    sizeBytes: moment.sizeBytes,
    extents: () => believed(moment.extents(), copied.extents()),
    read: (offset, into) => moment.read(offset, into),
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}

/**
 * Zero is what both call so. What is asked of the second for a part has to be asked after the first was for that part:
 * both describe a disk window by window, of the same size, so that follows from the order they are asked in here.
 */
export async function* believed(moment: AsyncIterable<Extent>, copied: AsyncIterable<Extent>): AsyncGenerator<Extent> {
  const others = copied[Symbol.asyncIterator]()
  let other: Extent | undefined
  for await (const { offset, length, ...kind } of moment) {
    for (let at = offset; at < offset + length;) {
      if (!other || other.offset + other.length <= at) {
        const next = await others.next()
        if (next.done) throw new Error('the image of what was copied is shorter than its disk')
        other = next.value
        continue
      }
      const end = Math.min(offset + length, other.offset + other.length)
      yield { ...kind, offset: at, length: end - at, isZero: kind.isZero && other.isZero }
      at = end
    }
  }
}
