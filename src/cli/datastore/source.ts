/** What `hako datastore backup` reads: image files and block devices. */
import type { BigIntStats } from 'node:fs'
import { mkdtemp, open, realpath, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { BlockSource } from '#datastore/backup/block-source.ts'
import { fileSource } from '#datastore/backup/source/file.ts'
import { nbdSource } from '#datastore/backup/source/nbd.ts'
import { Fault } from '#base/fault.ts'
import { blockDevice } from '#host/disks/block-devices.ts'
import { machine } from '#host/exec.ts'
import { asFileFault, isDiskError } from '#host/files.ts'
import { DirectFile } from '#host/files/direct-file.ts'
import { openImage } from '#host/nbd/nbd-server.ts'

export type ImageFormat = 'raw' | 'qcow2'

export interface WatchedSource extends BlockSource {
  /** To be asked once all of it was read. @throws Fault `conflict` when somebody wrote to it meanwhile */
  readonly requireSame: () => Promise<void>
}

/**
 * @param given as somebody said it is: what a file claims about itself may be its guest's doing
 * @throws Fault `missing`, `invalid`
 */
export async function sourceAt(path: string, given?: ImageFormat): Promise<WatchedSource> {
  const format = given ?? (path.endsWith('.qcow2') ? 'qcow2' : 'raw')
  const facts = await stat(path, { bigint: true }).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if (!facts.isFile() && !facts.isBlockDevice()) {
    throw new Fault('invalid', `'${path}' is no image file and no block device`)
  }
  if (facts.isFile() && format === 'raw') {
    if (given === undefined) await requireRaw(path)
    return watched(await fileSource(resolve(path), machine()), path, facts)
  }
  if (facts.isBlockDevice() && format === 'raw') return watched(await deviceSource(path), path, facts)
  const directory = await mkdtemp(join(tmpdir(), 'hako-source-'))
  try {
    const socket = join(directory, 'nbd.sock')
    const image = await openImage(machine(), { path: resolve(path), format, isReadOnly: true, socket })
    const served: BlockSource = {
      ...nbdSource(image.client),
      async [Symbol.asyncDispose]() {
        await image[Symbol.asyncDispose]()
        await rm(directory, { recursive: true, force: true })
      },
    }
    return watched(served, path, facts)
  } catch (fault) {
    await rm(directory, { recursive: true, force: true })
    throw fault
  }
}

/** Half of what was there before a write and half of what is there after it is no disk anybody ever had. */
function watched(source: BlockSource, path: string, before: BigIntStats): WatchedSource {
  const requireSame = async () => {
    const now = await stat(path, { bigint: true }).catch(() => undefined)
    // A file that was renamed, removed or replaced is what it was for who has it open; a device has no times.
    if (!now || !before.isFile() || now.ino !== before.ino) return
    if (now.size === before.size && now.mtimeNs === before.mtimeNs) return
    throw new Fault('conflict', `'${path}' was written to while it was read`, {
      remedy: 'Back it up when nobody writes to it, or back up a snapshot of it.',
    })
  }
  const read: BlockSource['read'] = async (offset, into) => {
    try {
      await source.read(offset, into)
    } catch (cause) {
      await requireSame()
      if (!isDiskError(cause)) throw asFileFault(cause, path)
      const where = `${offset}-${offset + into.length}`
      throw new Fault('failed', `'${path}' cannot be read at bytes ${where}: its disk reports an error`, {
        cause,
        remedy: 'Look at the disk, and at what the kernel says of it: dmesg.',
      })
    }
  }
  return { ...source, read, requireSame }
}

/** Read as it is: nobody can say what of a device was never written. */
async function deviceSource(path: string): Promise<BlockSource> {
  const { sizeBytes } = await blockDevice(machine(), await realpath(path))
  const file = await DirectFile.open(path, 'read').catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  return {
    sizeBytes,
    async *extents() {
      if (sizeBytes > 0) yield { offset: 0, length: sizeBytes, isZero: false }
    },
    read: (offset, into) => file.read(offset, into),
    [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
  }
}

/** @throws Fault `invalid`: what looks like an image of another format was most likely meant as one */
async function requireRaw(path: string): Promise<void> {
  await using file = await open(path, 'r')
  const head = Buffer.alloc(4)
  await file.read(head, 0, 4, 0)
  if (head.equals(Buffer.from('QFI\u00fb', 'latin1'))) {
    throw new Fault('invalid', `'${path}' looks like a qcow2 image`, {
      remedy: 'Say which it is: --format qcow2, or --format raw.',
    })
  }
}
