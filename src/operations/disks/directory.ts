/**
 * A disk becomes a folder, and back: a file system that is mounted at every start, with a storage on it when asked for.
 *
 * The file system is given its identifier before it is made, so that an undo in another process knows which one it was.
 */
import { Fault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import type { Directories } from '#disks/directories.ts'
import { requireOurs } from '#disks/guard.ts'
import { type FileSystem, makeFileSystem } from '#host/disks/disk-tools.ts'
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

export interface CreateDirectory {
  readonly device: string
  readonly name: string
  readonly fileSystem: FileSystem
  /** Also make it a storage of that name. */
  readonly addStorage: boolean
}

export interface RemoveDirectory extends RemovalOptions {
  readonly name: string
}

export interface DirectoryDeps extends DiskDeps {
  readonly directories: Directories
  readonly random: Random
}

const content = 'rootdir,images,iso,backup,vztmpl,snippets'
const lockOfName = (name: string) => `disk-directory/${name}`

export const createDirectory = operation<CreateDirectory, DirectoryDeps>('dircreate', {
  id: ({ name }) => name,
  locks: ({ device, name }) => [lockOf(device), lockOfName(name)],
})
  .step('check', {
    async do({ params, deps }) {
      const { name, addStorage } = params
      if (await deps.directories.find(name)) throw new Fault('conflict', `directory '${name}' already exists`)
      if (addStorage) await requireNewStorage(deps.storage, name, 'dir')
      return { ...(await requireBlank(deps, params.device)), uuid: deps.random.uuid() }
    },
  })
  .step('file system', {
    async do({ params, deps, done, log }) {
      const { device, uuid } = done.check
      await clearTable(deps.host, done.check)
      await makeFileSystem(deps.host, params.fileSystem, device, uuid)
      log(`made a file system of type ${params.fileSystem} on ${device}, UUID ${uuid}`)
    },
    undo: ({ deps, done }) => (done.check ? makeBlank(deps.host, done.check) : undefined),
  })
  .step('record', {
    async do({ params, deps, done }) {
      const { device, uuid } = done.check
      await deps.directories.record(params.name, { device, uuid, type: params.fileSystem })
    },
    async undo({ params, deps, done }) {
      const found = await deps.directories.find(params.name)
      if (found && found.uuid === done.check?.uuid) await deps.directories.forget(params.name)
    },
  })
  .step('mount', {
    async do({ params, deps, done, log }) {
      await deps.directories.mount(params.name, { ...done.check, type: params.fileSystem })
      log(`mounted on ${deps.directories.pathOf(params.name)}`)
    },
    undo: ({ params, deps }) => deps.directories.unmount(params.name),
  })
  .step('storage', {
    async do({ params, deps, task }) {
      if (!params.addStorage) return
      const path = deps.directories.pathOf(params.name)
      const where = { path, is_mountpoint: 'yes', nodes: task.node }
      await deps.storage.create({ storage: params.name, type: 'dir', content, ...where })
    },
    undo: ({ params, deps }) => (params.addStorage ? forgetStorage(deps.storage, params.name) : undefined),
  })

export const removeDirectory = operation<RemoveDirectory, DirectoryDeps>('dirremove', {
  id: ({ name }) => name,
  locks: ({ name }) => [lockOfName(name)],
})
  .step('check', {
    async do({ params, deps }) {
      const { name, cleanupConfig = false, cleanupDisks = false } = params
      const directory = await deps.directories.get(name)
      const path = deps.directories.pathOf(name)
      const device = cleanupDisks ? await deps.directories.deviceOf(directory) : undefined
      if (device !== undefined) await requireOurs(deps.settings, device)
      const there = await storagesToGo(deps, ({ options }) => options['path'] === path)
      if (cleanupDisks && !cleanupConfig && there.length > 0) {
        throw new Fault('conflict', `storage '${there[0]?.storage ?? ''}' lies on that disk`, {
          remedy: 'Set cleanup-config to remove it too, or remove it first.',
        })
      }
      return { directory, device: device ?? null, storages: cleanupConfig ? there : [] }
    },
  })
  .step('erasure', {
    do: () => {},
    // After success this is the deed itself, which nothing takes back. After a failure the directory is there again.
    async undo({ params, deps, done, log }) {
      const device = done.check?.device
      if (typeof device !== 'string' || (await deps.directories.find(params.name))) return
      await wipeWhole(deps.host, device)
      log(`wiped ${device}`)
    },
    always: true,
  })
  .step('storages', {
    async do({ deps, done }) {
      for (const { storage } of done.check.storages) await forgetStorage(deps.storage, storage)
    },
    undo: ({ deps, done }) => bringBackStorages(deps.storage, done.check?.storages ?? []),
  })
  .step('mount', {
    do: ({ params, deps }) => deps.directories.unmount(params.name),
    undo: ({ params, deps, done }) =>
      done.check ? deps.directories.mount(params.name, done.check.directory) : undefined,
  })
  .step('record', {
    do: ({ params, deps }) => deps.directories.forget(params.name),
    undo: ({ params, deps, done }) =>
      done.check ? deps.directories.put(params.name, done.check.directory) : undefined,
  })
