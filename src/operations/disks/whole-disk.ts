/** Acts on a disk as a whole: an empty partition table on a blank one, and nothing on one that held something. */
import { Fault, invalid } from '#base/fault.ts'
import { requireEmpty, requireOurs } from '#disks/guard.ts'
import { requireIdle } from '#host/disks/idle.ts'
import { clearBeginning, makeTable, readTableAgain, removeSignatures } from '#host/disks/disk-tools.ts'
import { blockDevice } from '#host/disks/block-devices.ts'
import { operation } from '#tasks/operation.ts'
import { type DiskDeps, lockOf } from './disk.ts'

export interface InitDisk {
  readonly disk: string
  /** Of the table; without it one is made. */
  readonly uuid?: string | undefined
}

export interface WipeDisk {
  readonly disk: string
}

const guid = /^[a-f0-9]{8}-(?:[a-f0-9]{4}-){3}[a-f0-9]{12}$/i

type Deps = Pick<DiskDeps, 'host' | 'settings'>
const facts = {
  id: ({ disk }: WipeDisk) => disk.replaceAll('/', '-').replace(/^-dev-/, ''),
  locks: ({ disk }: WipeDisk) => [lockOf(disk)],
}

export const initDisk = operation<InitDisk, Deps>('diskinit', facts)
  .step('check', {
    async do({ params, deps }) {
      if (params.uuid !== undefined && !guid.test(params.uuid)) throw invalid({ uuid: 'value is not a GUID' })
      const disk = await requireOurs(deps.settings, params.disk)
      const { partitionTable } = await requireEmpty(deps.host, disk)
      if (partitionTable !== undefined) throw new Fault('conflict', `device '${disk}' has a partition table already`)
      return disk
    },
  })
  .step('table', {
    async do({ params, deps, done, log }) {
      await makeTable(deps.host, done.check, params.uuid)
      log(`${done.check} has an empty GUID partition table now`)
    },
    async undo({ deps, done }) {
      if (done.check === undefined) return
      const { partitionTable } = await blockDevice(deps.host, done.check)
      if (partitionTable !== undefined) await removeSignatures(deps.host, done.check)
    },
  })

// No undo: what was on the disk is gone. Everything that could speak against it is asked before.
export const wipeDisk = operation<WipeDisk, Deps>('wipedisk', facts).step('wipe', {
  async do({ params, deps, log, signal }) {
    const disk = await requireOurs(deps.settings, params.disk)
    const { children, sizeBytes } = await requireIdle(deps.host, disk)
    for (const { path } of children) {
      await removeSignatures(deps.host, path)
      log(`wiped partition ${path}`)
    }
    await removeSignatures(deps.host, disk)
    await clearBeginning(deps.host, disk, sizeBytes, signal)
    await readTableAgain(deps.host, disk)
    log(`wiped ${disk}`)
  },
})
