/** Storages in PVE's spelling: keys and lists of text in replies, sizes in requests. */
import { type Static, object, string } from '#base/schema/schema.ts'
import { KiB, parseSize } from '#base/bytes.ts'
import type { Vmid } from '#base/ids.ts'
import type { Allocation } from './allocate.ts'
import { type ImageFormat, imageFormats } from './volume.ts'
import { commonOptions, type StorageConfig, storageType } from './config.ts'
import { btrfs } from './plugins/btrfs.ts'
import { dir } from './plugins/dir.ts'

/** Options of any plugin; which of them a type has is checked when it is configured. */
export const pluginOptions = { ...dir.config, ...btrfs.config }

export const storageReply = object({
  storage: string({ description: 'Name of the storage.' }),
  type: storageType,
  ...commonOptions,
  ...pathless(pluginOptions),
  digest: string({ description: 'SHA-1 of the configuration, for `digest` in a change.' }),
})

/** The plugins' options are optional here: a storage has those of its own type only. */
function pathless<P extends { readonly path: object }>(config: P) {
  return { ...config, path: { ...config.path, isOptional: true as const } }
}

export function configToWire(config: StorageConfig): Static<typeof storageReply> {
  const { name, type, content, nodes, isDisabled, isShared, pruneBackups, maxProtectedBackups, options, digest } =
    config
  return {
    ...options,
    storage: name,
    type,
    content: content.length === 0 ? 'none' : content.join(','),
    ...(nodes ? { nodes: nodes.join(',') } : {}),
    ...(isDisabled ? { disable: true } : {}),
    ...(isShared ? { shared: true } : {}),
    ...(pruneBackups === undefined ? {} : { 'prune-backups': pruneBackups }),
    ...(maxProtectedBackups === undefined ? {} : { 'max-protected-backups': maxProtectedBackups }),
    digest,
  }
}

/** PVE's size of a new image: KiB, or with suffix M or G. */
export function allocationOf(wish: {
  readonly storage: string
  readonly vmid: Vmid
  readonly filename: string
  readonly size: string
  readonly format?: ImageFormat | undefined
}): Allocation {
  const { storage, vmid, filename, size } = wish
  const ending = imageFormats.find((format) => filename.endsWith(`.${format}`))
  const sizeBytes = /^\d+$/.test(size) ? Number(size) * KiB : parseSize(size)
  return { storage, vmid, name: filename, sizeBytes, format: wish.format ?? ending ?? 'raw' }
}
