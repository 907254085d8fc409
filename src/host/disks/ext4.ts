/** ext4 in images that are mounted as they are, without a partition table. */
import { open } from 'node:fs/promises'
import type { Host } from '../host.ts'

const limitMs = 120_000

/** Makes an empty file system whose root belongs to that user and group. Tables are written as they are needed. */
export async function makeExt4(host: Host, path: string, root: number): Promise<void> {
  const extended = `root_owner=${root}:${root},lazy_itable_init=1,lazy_journal_init=1,nodiscard`
  await host.run(['mkfs.ext4', '-q', '-F', '-m', '1', '-E', extended, path], {
    timeoutMs: limitMs,
  })
}

/** Lets the file system fill its image, which has grown. Mounted or not. */
export async function growExt4(host: Host, path: string): Promise<void> {
  await host.run(['resize2fs', path], { timeoutMs: limitMs })
}

/** Where in the image the superblock is, and where in it what is read of it (kernel: Documentation/filesystems/ext4). */
const superblock = { offset: 1024, bytes: 100, blocks: 4, logBlockSize: 24, magic: 56, incompatible: 96 } as const
const ext4Magic = 0xef53
const needsRecovery = 0x4

/** How large the file system in an image is; undefined when there is none of this kind. */
export async function ext4BytesOf(path: string): Promise<number | undefined> {
  const block = await superblockOf(path)
  return block && block.readUInt32LE(superblock.blocks) * (1024 << block.readUInt32LE(superblock.logBlockSize))
}

/** Whether it ended without being unmounted: then it cannot be mounted before its journal was written back. */
export async function hasDirtyJournal(path: string): Promise<boolean> {
  const block = await superblockOf(path)
  return block !== undefined && (block.readUInt32LE(superblock.incompatible) & needsRecovery) !== 0
}

async function superblockOf(path: string): Promise<Buffer | undefined> {
  await using file = await open(path, 'r')
  const block = Buffer.alloc(superblock.bytes)
  const { bytesRead } = await file.read(block, 0, block.length, superblock.offset)
  return bytesRead === block.length && block.readUInt16LE(superblock.magic) === ext4Magic ? block : undefined
}

/** Mends what an unclean end left. Needed before an unmounted one is grown. */
export async function checkExt4(host: Host, path: string): Promise<void> {
  // 1: errors were there and are mended.
  await host.run(['e2fsck', '-f', '-p', path], { timeoutMs: 10 * limitMs, okCodes: [0, 1] })
}
