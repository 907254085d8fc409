/** The storages of one node with their room, reduced to those the caller may use. */
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, integer, number, object, optional, type Static, string } from '#base/schema/schema.ts'
import type { StorageConfig } from '#storage/config.ts'
import type { StorageStatus } from '#storage/configured.ts'
import type { StorageService } from '#storage/service.ts'
import type { May } from './volume-access.ts'

const room = {
  total: optional(integer({ description: 'Bytes in all.' })),
  used: optional(integer({ description: 'Bytes in use.' })),
  avail: optional(integer({ description: 'Bytes that can still be written.' })),
}
const state = {
  type: string({ description: 'Kind of storage.' }),
  content: string({ description: 'What it may hold.' }),
  enabled: optional(boolean({ description: 'Configured for this node and not disabled.' })),
  active: optional(boolean({ description: 'Can be used now.' })),
  shared: optional(boolean({ description: 'The same volumes are seen on every node.' })),
}

export const storageState = object({ ...state, ...room })
export const storageItem = object({
  storage: string({ description: 'Name of the storage.' }),
  ...state,
  ...room,
  used_fraction: optional(number({ description: 'Part in use, from 0 to 1.' })),
  formats: optional(
    object({
      default: string({ description: 'Format of new images when nobody says.' }),
      supported: array(string({ description: 'A format of images.' })),
    }),
  ),
})
export type StorageItem = Static<typeof storageItem>

export interface StorageQuery {
  readonly node: string
  /** Only those that hold one of these. */
  readonly content?: string | undefined
  readonly enabled?: boolean | undefined
  readonly storage?: string | undefined
  /** Only those this node has as well. */
  readonly target?: string | undefined
  readonly format?: boolean | undefined
}

type Storages = Pick<StorageService, 'list' | 'get' | 'status' | 'featuresOf'>

/** Sorted by name. */
export async function nodeStorages(storages: Storages, query: StorageQuery, may: May): Promise<StorageItem[]> {
  const wanted = (await storages.list()).filter((config) => isWanted(config, query))
  const allowed = await Promise.all(wanted.map(({ name }) => mayUse(name, may)))
  const shown = wanted.filter((_, at) => allowed[at])
  return Promise.all(shown.map((config) => itemOf(storages, config, query.format ?? false)))
}

export async function storageStatus(storages: Storages, name: string): Promise<Static<typeof storageState>> {
  return stateOf(await storages.get(name), await storages.status(name))
}

/** As PVE: whoever may look at a storage or put something there. */
export async function mayUse(name: string, may: May): Promise<boolean> {
  const path = `/storage/${name}`
  return (await may(path, 'Datastore.Audit')) || (await may(path, 'Datastore.AllocateSpace'))
}

/** Configurations the caller may see, of one type if wanted. */
export async function visibleStorages(
  storages: Pick<StorageService, 'list'>,
  type: string | undefined,
  may: May,
): Promise<StorageConfig[]> {
  const configs = (await storages.list()).filter((config) => type === undefined || config.type === type)
  const allowed = await Promise.all(configs.map(({ name }) => mayUse(name, may)))
  return configs.filter((_, at) => allowed[at])
}

function isWanted({ name, nodes, content, isDisabled }: StorageConfig, query: StorageQuery): boolean {
  const isOn = (node: string) => nodes === undefined || nodes.includes(node)
  const contents = query.content === undefined ? undefined : splitList(query.content)
  return (
    isOn(query.node) &&
    (query.target === undefined || isOn(query.target)) &&
    (query.storage === undefined || query.storage === name) &&
    !(query.enabled === true && isDisabled) &&
    (contents === undefined || contents.some((one) => content.some((held) => held === one)))
  )
}

async function itemOf(storages: Storages, config: StorageConfig, withFormats: boolean): Promise<StorageItem> {
  const status = await storages.status(config.name)
  const { formats } = storages.featuresOf(config)
  const { totalBytes, usedBytes } = status
  return {
    storage: config.name,
    ...stateOf(config, status),
    ...(status.active && totalBytes > 0 ? { used_fraction: usedBytes / totalBytes } : {}),
    ...(withFormats && formats[0] ? { formats: { default: formats[0], supported: [...formats] } } : {}),
  }
}

function stateOf(config: StorageConfig, status: StorageStatus): Static<typeof storageState> {
  const { totalBytes: total, usedBytes: used, availableBytes: avail, active, enabled } = status
  const content = config.content.length === 0 ? 'none' : config.content.join(',')
  return { type: config.type, content, enabled, active, shared: config.isShared, total, used, avail }
}
