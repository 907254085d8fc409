/**
 * Logs in a guest's run directory: the console's, the firmware's and QEMU's own.
 *
 * The directory belongs to the guest's QEMU while it runs, so root touches a file there only through a
 * descriptor that was opened without following links and is a plain file of that uid.
 */
import { constants } from 'node:fs'
import { chown, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { codeOf } from '#host/files.ts'

/** A log that grew past this is emptied; QEMU appends, so it goes on from the start. */
export const logLimitBytes = 16 * MiB

/** Empties logs that are too long. */
export async function boundLogs(runDir: string, uid: number, limitBytes = logLimitBytes): Promise<void> {
  for (const name of await logsIn(runDir)) {
    try {
      const file = await open(join(runDir, name), constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
      try {
        const facts = await file.stat()
        const isOwn = facts.isFile() && facts.nlink === 1 && (facts.uid === uid || facts.uid === 0)
        if (isOwn && facts.size > limitBytes) await file.truncate(0)
      } finally {
        await file.close()
      }
    } catch (cause) {
      // A link, or gone meanwhile.
      if (!['ELOOP', 'ENOENT', 'ENXIO'].includes(codeOf(cause) ?? '')) throw cause
    }
  }
}

/** After the end of a guest: its logs stay until the next start, everything else goes. */
export async function keepLogs(runDir: string): Promise<void> {
  try {
    await chown(runDir, 0, 0)
    for (const name of await readdir(runDir)) {
      if (!name.endsWith('.log')) await rm(join(runDir, name), { recursive: true, force: true })
    }
  } catch (cause) {
    if (codeOf(cause) !== 'ENOENT') throw cause
  }
}

async function logsIn(runDir: string): Promise<string[]> {
  try {
    return (await readdir(runDir)).filter((name) => name.endsWith('.log'))
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return []
    throw cause
  }
}
