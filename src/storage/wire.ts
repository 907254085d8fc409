/** Storages in PVE's spelling: keys and lists of text in replies, sizes in requests. */
import { object, optional, type Optional, type Properties, type Static, string } from '#base/schema/schema.ts'
import { KiB, parseSize } from '#base/bytes.ts'
import type { Vmid } from '#base/ids.ts'
import type { Allocation } from './allocate.ts'
import { type ImageFormat, imageFormats } from './volume.ts'
import { commonOptions, type StorageConfig, storageType } from './config.ts'
import { btrfs } from './plugins/btrfs.ts'
import { dir } from './plugins/dir.ts'
import { hakobune } from './plugins/hakobune.ts'
import { s3 } from './plugins/s3.ts'

/** Options of any plugin; which of them a type has is checked when it is configured. */
export const pluginOptions = asOptions({ ...dir.config, ...btrfs.config, ...hakobune.config, ...s3.config })

export const storageReply = object({
  storage: string({ description: 'Name of the storage.' }),
  type: storageType,
  ...commonOptions,
  ...withoutSecrets(pluginOptions),
  digest: string({ description: 'SHA-1 of the configuration, for `digest` in a change.' }),
})

/** A storage has those of its own type only. */
function asOptions<P extends Properties>(config: P) {
  const entries = Object.entries(config).map(([name, schema]) => [name, optional(schema)])
  return Object.fromEntries(entries) as { readonly [K in keyof P]: Optional<P[K]> }
}

function withoutSecrets<P extends { readonly password: object; readonly 'secret-key': object }>(config: P) {
  const { password: _, 'secret-key': __, ...others } = config
  return others
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
