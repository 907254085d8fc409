/** What operations on disks share: a lock for each disk, a blank to work on, and the storage that may come and go with it. */
import { Fault, isFault } from '#base/fault.ts'
import { requireEmpty, requireOurs } from '#disks/guard.ts'
import { heldVolumes } from '../guest/volumes.ts'
import type { GuestService } from '#guests/service.ts'
import { makeTable, readTableAgain, removeSignatures } from '#host/disks/disk-tools.ts'
import type { Host } from '#host/host.ts'
import { blockDevice } from '#host/disks/block-devices.ts'
import type { Settings } from '#settings.ts'
import type { StorageConfig, StorageDocument } from '#storage/config.ts'
import { pluginOf } from '#storage/plugins/all.ts'
import type { StorageService } from '#storage/service.ts'

export interface DiskDeps {
  readonly host: Host
  readonly settings: Settings
  readonly storage: StorageService
  readonly guests: Pick<GuestService, 'list' | 'config'>
}

export interface RemovalOptions {
  /** Also the storages that lie there. */
  readonly cleanupConfig?: boolean | undefined
  /** Also wipe the disks, so that they can be used for something else. */
  readonly cleanupDisks?: boolean | undefined
}

/** What makes a storage again; goes through the journal. */
export type SavedStorage = StorageDocument & { readonly storage: string; readonly type: string }

export const lockOf = (device: string): string => `disk/${device}`

/** A disk one may write to: as it is now, for who has to take it back there. */
export type Blank = { readonly device: string; readonly hasTable: boolean }

/** @throws Fault `missing`, `conflict` saying what is on it, who uses it, or whose it is */
export async function requireBlank({ host, settings }: DiskDeps, device: string): Promise<Blank> {
  const path = await requireOurs(settings, device)
  const { partitionTable } = await requireEmpty(host, path)
  return { device: path, hasTable: partitionTable !== undefined }
}

/** Before something takes the whole device. */
export async function clearTable(host: Host, { device, hasTable }: Blank): Promise<void> {
  if (hasTable) await removeSignatures(host, device)
}

/** The device as it was found: empty, with or without a table. Harmless when it is already. */
export async function makeBlank(host: Host, { device, hasTable }: Blank): Promise<void> {
  const { fileSystem, partitionTable } = await blockDevice(host, device)
  if (fileSystem !== undefined) await removeSignatures(host, device)
  if (hasTable && (fileSystem !== undefined || partitionTable === undefined)) await makeTable(host, device)
}

/** @throws Fault `conflict` for a name that is taken, `unavailable` for a type of storage there is no driver for */
export async function requireNewStorage(storage: StorageService, name: string, type: string): Promise<void> {
  pluginOf(type)
  const isTaken = await storage.get(name).then(
    () => true,
    (error: unknown) => {
      if (isFault(error, 'missing')) return false
      throw error
    },
  )
  if (isTaken) throw new Fault('conflict', `storage '${name}' already exists`)
}

/** The name was free when the task began, and the task holds the disk: a storage of that name is ours. */
export async function forgetStorage(storage: StorageService, name: string): Promise<void> {
  await storage.delete(name).catch((error: unknown) => {
    if (!isFault(error, 'missing')) throw error
  })
}

/** Storages whose options say so. Disks of guests on one of them are named, and nothing is done. */
export async function storagesToGo(
  { storage, guests }: DiskDeps,
  isMeant: (config: StorageConfig) => boolean,
): Promise<SavedStorage[]> {
  const configs = (await storage.list()).filter(isMeant)
  for (const { vmid } of await guests.list()) {
    const volumes = heldVolumes(await guests.config(vmid, 'any'))
    const held = volumes.find((volid) => configs.some(({ name }) => volid.startsWith(`${name}:`)))
    if (held !== undefined) {
      throw new Fault('conflict', `guest ${vmid} has '${held}' there`, {
        remedy: 'Move the disk or remove the guest first.',
      })
    }
  }
  return configs.map(inputOf)
}

/** What makes the same storage again. */
function inputOf(config: StorageConfig): SavedStorage {
  const { name, type, content, nodes, isDisabled, isShared, pruneBackups, options } = config
  return {
    storage: name,
    type,
    content: content.length === 0 ? 'none' : content.join(','),
    ...(nodes ? { nodes: nodes.join(',') } : {}),
    ...(isDisabled ? { disable: 1 } : {}),
    ...(isShared ? { shared: 1 } : {}),
    ...(pruneBackups === undefined ? {} : { 'prune-backups': pruneBackups }),
    ...options,
  }
}

/** Those that are not there. */
export async function bringBackStorages(storage: StorageService, inputs: readonly SavedStorage[]): Promise<void> {
  const names = (await storage.list()).map(({ name }) => name)
  for (const input of inputs) if (!names.includes(input.storage)) await storage.create(input)
}

export async function wipeWhole(host: Host, device: string): Promise<void> {
  await removeSignatures(host, device)
  await readTableAgain(host, device)
}
