/** Files that share their blocks until one of them is written to, on file systems that can: btrfs and XFS. */
import { chmod, constants, copyFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { codeOf } from '#host/files.ts'
import { newUnfinished } from './unfinished.ts'

/** What is said where there is no such thing, or not between these two. */
const unable = ['ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'ENOTTY', 'EXDEV', 'EINVAL']

/** Gives a file the content of another, in no time. False, and nothing has changed, where that cannot be. */
export async function shareContent(source: string, path: string): Promise<boolean> {
  // Beside it: what fails on the way is removed by whoever tries.
  const beside = await newUnfinished(dirname(path))
  try {
    await copyFile(source, beside, constants.COPYFILE_FICLONE_FORCE)
    await chmod(beside, 0o600)
    await rename(beside, path)
    return true
  } catch (cause) {
    if (unable.includes(codeOf(cause) ?? '')) return false
    throw cause
  } finally {
    await rm(beside, { force: true })
  }
}
