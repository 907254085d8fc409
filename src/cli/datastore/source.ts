/** What `hako datastore backup` reads: image files and block devices. */
import { mkdtemp, open, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { BlockSource } from '#datastore/backup/block-source.ts'
import { fileSource } from '#datastore/backup/source/file.ts'
import { nbdSource } from '#datastore/backup/source/nbd.ts'
import { Fault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { asFileFault } from '#host/files.ts'
import { openImage } from '#host/nbd/nbd-server.ts'

export type ImageFormat = 'raw' | 'qcow2'

/**
 * @param given as somebody said it is: what a file claims about itself may be its guest's doing
 * @throws Fault `missing`, `invalid`
 */
export async function sourceAt(path: string, given?: ImageFormat): Promise<BlockSource> {
  const format = given ?? (path.endsWith('.qcow2') ? 'qcow2' : 'raw')
  const facts = await stat(path).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if (!facts.isFile() && !facts.isBlockDevice()) {
    throw new Fault('invalid', `'${path}' is no image file and no block device`)
  }
  if (facts.isFile() && format === 'raw') {
    if (given === undefined) await requireRaw(path)
    return fileSource(resolve(path), machine())
  }
  const directory = await mkdtemp(join(tmpdir(), 'hako-source-'))
  try {
    const socket = join(directory, 'nbd.sock')
    const image = await openImage(machine(), { path: resolve(path), format, isReadOnly: true, socket })
    return {
      ...nbdSource(image.client),
      async [Symbol.asyncDispose]() {
        await image[Symbol.asyncDispose]()
        await rm(directory, { recursive: true, force: true })
      },
    }
  } catch (fault) {
    await rm(directory, { recursive: true, force: true })
    throw fault
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
