/**
 * A disk becomes a volume group, and back.
 *
 * A group is removed only when it holds no volume, and what it was made of is written down first: until the task has
 * succeeded the same group can be made again.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, missing } from '#base/fault.ts'
import { requireOurs } from '#disks/guard.ts'
import type { Host } from '#host/host.ts'
import {
  createGroup,
  physicalVolumes,
  removeGroup,
  removePhysical,
  restoreGroup,
  saveGroup,
  volumeGroups,
} from '#host/disks/lvm.ts'
import { operation } from '#tasks/operation.ts'
import {
  bringBackStorages,
  clearTable,
  type DiskDeps,
  forgetStorage,
  lockOf,
  makeBlank,
  type RemovalOptions,
  requireBlank,
  requireNewStorage,
  storagesToGo,
  wipeWhole,
} from './disk.ts'

export interface CreateVolumeGroup {
  readonly device: string
  readonly name: string
  readonly addStorage: boolean
}

export interface RemoveVolumeGroup extends RemovalOptions {
  readonly name: string
}

const lockOfName = (name: string) => `volume-group/${name}`

export const createVolumeGroup = operation<CreateVolumeGroup, DiskDeps>('lvmcreate', {
  id: ({ name }) => name,
  locks: ({ device, name }) => [lockOf(device), lockOfName(name)],
})
  .step('check', {
    async do({ params, deps }) {
      const { name, addStorage } = params
      const groups = await volumeGroups(deps.host)
      if (groups.some((group) => group.name === name))
        throw new Fault('conflict', `volume group '${name}' already exists`)
      if (addStorage) await requireNewStorage(deps.storage, name, 'lvm')
      return requireBlank(deps, params.device)
    },
  })
  .step('group', {
    async do({ params, deps, done, log }) {
      await clearTable(deps.host, done.check)
      await createGroup(deps.host, params.name, done.check.device)
      log(`made the volume group ${params.name} of ${done.check.device}`)
    },
    async undo({ params, deps, done }) {
      if (!done.check) return
      const { host } = deps
      const own = await volumesOn(host, done.check.device)
      if (own.some(({ group }) => group === params.name)) await removeGroup(host, params.name)
      if (own.length > 0) await removePhysical(host, done.check.device)
      await makeBlank(host, done.check)
    },
  })
  .step('storage', {
    async do({ params, deps, task }) {
      if (!params.addStorage) return
      const { name } = params
      await deps.storage.create({
        storage: name,
        type: 'lvm',
        vgname: name,
        content: 'rootdir,images',
        nodes: task.node,
      })
    },
    undo: ({ params, deps }) => (params.addStorage ? forgetStorage(deps.storage, params.name) : undefined),
  })

export const removeVolumeGroup = operation<RemoveVolumeGroup, DiskDeps>('lvmremove', {
  id: ({ name }) => name,
  locks: ({ name }) => [lockOfName(name)],
})
  .step('check', {
    async do({ params, deps }) {
      const { name, cleanupConfig = false } = params
      const group = (await volumeGroups(deps.host)).find((one) => one.name === name)
      if (!group) throw missing('volume group', name)
      if (group.volumeCount > 0) {
        throw new Fault('conflict', `volume group '${name}' holds ${group.volumeCount} volume(s)`, {
          remedy: `Remove them first; \`lvs ${name}\` on the node names them.`,
        })
      }
      const all = await physicalVolumes(deps.host)
      const devices = all.filter((volume) => volume.group === name).map(({ device }) => device)
      for (const device of devices) await requireOurs(deps.settings, device)
      const there = await storagesToGo(deps, ({ options }) => options['vgname'] === name)
      return { devices, storages: cleanupConfig ? there : [] }
    },
  })
  .step('erasure', {
    do: () => {},
    // After success this is the deed itself, which nothing takes back. After a failure the group is there again.
    async undo({ params, deps, done, log }) {
      await rm(backupOf(deps, params.name), { force: true })
      if (params.cleanupDisks !== true) return
      for (const device of done.check?.devices ?? []) {
        const [own] = await volumesOn(deps.host, device)
        if (own?.group !== undefined) continue
        if (own) await removePhysical(deps.host, device)
        await wipeWhole(deps.host, device)
        log(`wiped ${device}`)
      }
    },
    always: true,
  })
  .step('storages', {
    async do({ deps, done }) {
      for (const { storage } of done.check.storages) await forgetStorage(deps.storage, storage)
    },
    undo: ({ deps, done }) => bringBackStorages(deps.storage, done.check?.storages ?? []),
  })
  .step('saved', { do: ({ params, deps }) => saveGroup(deps.host, params.name, backupOf(deps, params.name)) })
  .step('group', {
    async do({ params, deps, log }) {
      await removeGroup(deps.host, params.name)
      log(`removed the volume group ${params.name}`)
    },
    async undo({ params, deps, done }) {
      if (!done.check || (await volumeGroups(deps.host)).some(({ name }) => name === params.name)) return
      await restoreGroup(deps.host, params.name, backupOf(deps, params.name))
    },
  })

function backupOf({ settings }: DiskDeps, name: string): string {
  return join(settings.stateDir, `volume-group-${name}.saved`)
}

async function volumesOn(host: Host, device: string) {
  return (await physicalVolumes(host)).filter((volume) => volume.device === device)
}
