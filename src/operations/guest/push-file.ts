/**
 * Brings an uploaded file into a container: as a file, whose old content or new is there whatever happens, or unpacked
 * as an archive, of which what was unpacked stays. The spooled upload goes either way.
 */
import { createReadStream } from 'node:fs'
import { rm, stat } from 'node:fs/promises'
import { humanSize } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { isTemplate } from '#guests/config.ts'
import type { GuestService } from '#guests/service.ts'
import type { Store } from '#store/store.ts'
import { acquireLocks } from '#tasks/lock.ts'
import { operation } from '#tasks/operation.ts'

export interface PushFile {
  readonly vmid: number
  /** Inside. */
  readonly path: string
  /** The spooled upload; removed at the end. */
  readonly spooled: string
  readonly isArchive?: boolean | undefined
  readonly mode?: number | undefined
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  /** Makes the folders on the way. */
  readonly parents?: boolean | undefined
}

export interface PushFileDeps {
  readonly guests: Pick<GuestService, 'files' | 'config' | 'isRunning'>
  readonly store: Store
}

/**
 * In a container that runs it is an act of somebody inside, as any other while it is backed up or changed. In one that is
 * off its files are nobody's but the task's that holds the guest, so then this task holds it while it writes.
 */
export const pushFile = operation<PushFile, PushFileDeps>('vzpush', { id: ({ vmid }) => vmid })
  .step('spool', {
    do: ({ params, log }) => log(`bringing '${params.path}' into CT ${params.vmid}`),
    undo: ({ params }) => rm(params.spooled, { force: true }),
    always: true,
  })
  // No undo: a file is there whole, or not at all.
  .step('write', {
    do: async ({ params, deps, log, signal, task }) => {
      const { spooled, isArchive, vmid, path, parents = false, mode, uid, gid } = params
      const { options } = await deps.guests.config(asVmid(vmid), 'lxc')
      if (isTemplate(options)) throw new Fault('conflict', `the files of template ${vmid} are only read`)
      if (!(await deps.guests.isRunning(asVmid(vmid)))) {
        // Given back when the task ends, however it does.
        await acquireLocks(deps.store, [`guest/${vmid}`], task.upid, { signal })
      }
      const { size } = await stat(spooled)
      const bytes = createReadStream(spooled)
      if (isArchive === true) await deps.guests.files.unpack(asVmid(vmid), path, bytes, signal)
      else {
        const file = { path, sizeBytes: size, parents, mode, uid, gid }
        await deps.guests.files.write(asVmid(vmid), file, bytes, signal)
      }
      log(`${humanSize(size)} are there`)
    },
  })
