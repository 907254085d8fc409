/**
 * Uploaded files on their way from the front to a task.
 *
 * The front writes into a directory of its own. Before the daemon looks at a file it moves it to a directory
 * only root can enter: a front that has been taken over could otherwise swap the file, after the look and
 * before the use, for a link to something it may not read. The move is a rename, so both directories must
 * be on one file system.
 */
import { chown, lstat, mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, systemClock } from '#base/clock.ts'
import { Fault, invalid } from '#base/fault.ts'
import type { Random } from '#base/random.ts'

export interface SpoolOptions {
  /** Holds both directories; needs room for the largest upload, so not a file system in memory. */
  readonly directory: string
  /** Who writes uploads: the front's uid. */
  readonly uid: number
  readonly random: Random
  readonly clock?: Clock
  /** Whether somebody still works with this claimed file. Without an answer it is kept until it is old. */
  readonly isInUse?: (path: string) => Promise<boolean>
}

/** A task copies what it was given within minutes. What is older belongs to nobody any more. */
const forgottenAfterMs = 24 * 60 * 60 * 1000

export interface Spool {
  /** Belongs to the front. */
  readonly incoming: string
  /** Belongs to root. */
  readonly claimed: string
  /**
   * Makes both directories and sweeps them: of the incoming files everything, because who was sending them is
   * gone; of the claimed ones those nobody uses, because tasks outlive the daemon and may still read theirs.
   */
  readonly open: () => Promise<void>
  /** Takes a spooled file over and returns where it is now. @throws Fault `invalid` */
  readonly claim: (name: string) => Promise<string>
  readonly newName: () => string
}

export function createSpool({ directory, uid, random, clock = systemClock, isInUse }: SpoolOptions): Spool {
  const incoming = join(directory, 'incoming')
  const claimed = join(directory, 'claimed')
  const newName = () => `upload-${random.uuid()}`
  return {
    incoming,
    claimed,
    newName,
    async open() {
      for (const [path, mode] of [
        [directory, 0o711],
        [incoming, 0o700],
        [claimed, 0o700],
      ] as const) {
        await mkdir(path, { recursive: true, mode })
      }
      await chown(incoming, uid, uid)
      for (const name of await readdir(incoming)) await rm(join(incoming, name), { recursive: true, force: true })
      for (const name of await readdir(claimed)) await forget(join(claimed, name), { clock, isInUse })
    },
    async claim(name) {
      if (!/^[\w-]{1,64}$/.test(name)) throw invalid({ tmpfilename: 'value is not a spooled upload' })
      const path = join(claimed, newName())
      await rename(join(incoming, name), path).catch((cause: unknown) => {
        throw new Fault('missing', `upload '${name}' does not exist`, { cause })
      })
      const facts = await lstat(path)
      if (facts.isFile() && facts.nlink === 1 && (facts.uid === uid || facts.uid === 0)) {
        await chown(path, 0, 0)
        return path
      }
      await rm(path, { recursive: true, force: true })
      throw invalid({ tmpfilename: 'the spooled upload is not a plain file' })
    },
  }
}

/** An upload whose daemon died before it became a task belongs to nobody. */
async function forget(
  path: string,
  { clock, isInUse }: { clock: Clock; isInUse: SpoolOptions['isInUse'] | undefined },
): Promise<void> {
  const { ctimeMs } = await lstat(path)
  const isOld = clock.now() - ctimeMs > forgottenAfterMs
  if (isOld || (isInUse !== undefined && !(await isInUse(path)))) await rm(path, { recursive: true, force: true })
}
