/** ext4 in images that are mounted as they are, without a partition table. */
import type { Host } from './host.ts'

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

/** Mends what an unclean end left. Needed before an unmounted one is grown. */
export async function checkExt4(host: Host, path: string): Promise<void> {
  // 1: errors were there and are mended.
  await host.run(['e2fsck', '-f', '-p', path], { timeoutMs: 10 * limitMs, okCodes: [0, 1] })
}
