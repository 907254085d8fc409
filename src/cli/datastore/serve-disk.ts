/** `hako datastore serve-disk`: a disk of a backup for QEMU and its tools, without restoring it. */
import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Fault, messageOf } from '#base/fault.ts'
import { printPoint } from '#datastore/point.ts'
import { ServedDisk } from '#datastore/restore/served-disk.ts'
import { exportDisk } from '#host/nbd/nbd-export.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { say } from '../text.ts'
import { pointNamed } from './naming.ts'
import { withKeys } from './opening.ts'

/** Until the signal. @returns what was read from the backup meanwhile */
export async function serveDisk(directory: string, name: string, socket: string, parsed: Parsed, terminal: Terminal) {
  const path = resolve(socket)
  // A socket somebody left behind may go.
  if ((await stat(path).catch(() => undefined))?.isSocket() === false) {
    throw new Fault('conflict', `'${path}' is there already`, { remedy: 'Name a socket that is not, or remove it.' })
  }
  return withKeys(directory, parsed, terminal, async (open) => {
    const point = await pointNamed(open.datastore, name)
    await using reader = await open.open(point)
    const { disk: given } = parsed.params
    const disk = typeof given === 'string' ? given : reader.body.disks[0]?.name
    if (disk === undefined) throw new Fault('invalid', `backup ${printPoint(point)} has no disk`)
    const served = new ServedDisk(await reader.openDisk(disk), { chunkBytes: reader.chunkBytes })
    const onError = (cause: unknown) => terminal.show(messageOf(cause), false)
    const uid = process.getuid?.() ?? 0
    await using _server = await exportDisk({ socket: path, uid, disk: served, onError })
    terminal.show(say(terminal.language, 'servingDisk', `nbd+unix:///?socket=${path}`), false)
    await untilAborted(terminal.signal)
    return { backup: printPoint(point), disk, socket: path, size: served.sizeBytes, data: served.readBytes }
  })
}

function untilAborted(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) resolve()
    else signal?.addEventListener('abort', () => resolve(), { once: true })
  })
}
