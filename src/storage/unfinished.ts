/**
 * Files still being written.
 *
 * They stand in the folder of the finished file, so that publishing is one `link` or `rename`, under a
 * name no volume can have: `.new-<pid>-<start time>-<n><ending>`. The name tells who writes, so whatever
 * a killed process left can be told from what a living one still needs. Rejected: age as the sign of
 * being left over, because importing a large disk takes hours.
 *
 * Who may run beside whom: any number of writers and sweepers.
 */
import { mkdir, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '#host/files.ts'
import { isAlive, startTimeOf } from '#host/programs/proc.ts'

const pattern = /^\.new-(\d+)-(\d+)-\d+(?:\.[a-z0-9]+)?$/
let written = 0

/** Makes an empty file in `folder` that belongs to this process, and returns its path. */
export async function newUnfinished(folder: string, ending = ''): Promise<string> {
  const startTime = (await startTimeOf(process.pid)) ?? 0
  for (;;) {
    written += 1
    const path = join(folder, `.new-${process.pid}-${startTime}-${written}${ending}`)
    try {
      await (await open(path, 'wx', 0o600)).close()
      return path
    } catch (cause) {
      // A process of an earlier boot may have had the same number and start.
      if (codeOf(cause) !== 'EEXIST') throw cause
    }
  }
}

/** As `newUnfinished`, a folder. */
export async function newUnfinishedFolder(folder: string, ending = ''): Promise<string> {
  const path = await newUnfinished(folder, ending)
  await rm(path)
  await mkdir(path, { mode: 0o700 })
  return path
}

/** Removes what dead processes left in `folder` and returns the names. A missing folder holds nothing. */
export async function sweepUnfinished(
  folder: string,
  // A folder, when another tool wrote there.
  discard = (path: string) => rm(path, { recursive: true, force: true }),
): Promise<string[]> {
  const swept: string[] = []
  for (const file of await filesIn(folder)) {
    const [, pid, startTime] = pattern.exec(file) ?? []
    if (pid === undefined || (await isAlive(Number(pid), Number(startTime)))) continue
    await discard(join(folder, file))
    swept.push(file)
  }
  return swept
}

/** Names in a folder, sorted; none when there is no such folder. */
export async function filesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).toSorted()
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return []
    throw cause
  }
}
