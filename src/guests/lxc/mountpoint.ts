/** Root file system and mount points: `local:100/vm-100-disk-0.raw,size=8G` and `local:4,mp=/srv`. */
import { GiB } from '#base/bytes.ts'
import { parseSize } from '#base/bytes.ts'
import type { VolumeId } from '#base/ids.ts'
import { asVolumeId } from '#base/ids.ts'
import type { Errors } from '#base/schema/check.ts'
import type { PropertyValues } from '#base/schema/property-string.ts'
import { printPropertyString, readPropertyString } from '#base/schema/property-string.ts'
import { boolean, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat, PropertyKey, Schema } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { isUnprivileged } from './features.ts'
import { wrongIds } from './mount-ids.ts'

export const mountCount = 256

const key = (schema: Schema): PropertyKey => ({ schema: optional(schema) })
const idmapPattern = /passthrough|[ug]:[0-9]+:[0-9]+:[1-9][0-9]*(?:;[ug]:[0-9]+:[0-9]+:[1-9][0-9]*)*/
const option = '(?:discard|lazytime|noatime|nodev|noexec|nosuid)'

const shared: PropertyFormat = {
  volume: {
    schema: string({
      description: 'Volume, or `<storage>:<GiB>` for a new one.',
      format: 'pve-lxc-mp-string',
      maxLength: 1024,
    }),
    isDefaultKey: true,
  },
  acl: key(boolean({ description: 'Access control lists.' })),
  idmap: key(
    string({
      description: 'Its ids inside: passthrough, or ranges kind:inside:on the disk:how many.',
      pattern: idmapPattern,
      maxLength: 1024,
    }),
  ),
  mountoptions: key(
    string({
      description: 'Further options of the mount.',
      pattern: new RegExp(`${option}(?:;${option})*`),
      maxLength: 64,
    }),
  ),
  quota: key(boolean({ description: 'Quota of users inside.' })),
  replicate: key(boolean({ description: 'Part of replication.', default: true })),
  ro: key(boolean({ description: 'Read only.' })),
  shared: key(boolean({ description: 'The same on every node.', default: false })),
  size: key(string({ description: 'For information only.', format: 'disk-size', maxLength: 32 })),
}

export const rootfsFormat: PropertyFormat = shared

export const mountFormat: PropertyFormat = {
  ...shared,
  backup: key(boolean({ description: 'Backups include it.' })),
  keepattrs: key(boolean({ description: 'Owner and mode of the folder inside stay.', default: false })),
  mp: { schema: string({ description: 'Folder inside.', format: 'pve-lxc-mp-string', maxLength: 1024 }) },
}

export const unusedFormat: PropertyFormat = {
  volume: { schema: string({ format: 'pve-volume-id', maxLength: 1024 }), isDefaultKey: true },
}

export interface Mount {
  /** `rootfs`, `mp0`, … */
  readonly name: string
  readonly values: PropertyValues
  /** Folder inside; `/` for the root. */
  readonly path: string
}

/** What the text of a mount asks for. */
export type MountWish =
  | { readonly kind: 'allocate'; readonly storage: string; readonly sizeBytes: number }
  | { readonly kind: 'volume'; readonly volid: VolumeId }
  /** A folder of the node. */
  | { readonly kind: 'path'; readonly path: string }

export function isMountName(name: string): boolean {
  return name === 'rootfs' || /^mp\d+$/.test(name)
}

function formatOf(name: string): PropertyFormat {
  return name === 'rootfs' ? rootfsFormat : mountFormat
}

export function mountOf(name: string, text: string): Mount {
  const values = readPropertyString(formatOf(name), text, name)
  return { name, values, path: name === 'rootfs' ? '/' : String(values.mp) }
}

/** The root first, then as numbered. */
export function mountNames(options: Options): string[] {
  const names = ['rootfs', ...Array.from({ length: mountCount }, (_, index) => `mp${index}`)]
  return names.filter((name) => options[name] !== undefined)
}

export function mountsOf(options: Options): Mount[] {
  return mountNames(options).map((name) => mountOf(name, options[name] ?? ''))
}

export function wishOf({ values }: Pick<Mount, 'values'>): MountWish {
  const volume = String(values.volume)
  if (volume.startsWith('/')) return { kind: 'path', path: volume }
  const [, storage, size] = /^([a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]):(\d+(?:\.\d+)?)$/.exec(volume) ?? []
  if (storage !== undefined) return { kind: 'allocate', storage, sizeBytes: Math.ceil(Number(size) * GiB) }
  return { kind: 'volume', volid: asVolumeId(volume) }
}

export function printMount(mount: Mount, changes: Readonly<Record<string, string | undefined>>): string {
  return printPropertyString(formatOf(mount.name), { ...mount.values, ...changes })
}

/** Volumes the options name, with the name of each: of mounts, and `unusedN`. */
export function volumesIn(options: Options): { readonly name: string; readonly volid: VolumeId }[] {
  const mounts = mountsOf(options).flatMap((mount) => {
    const wish = wishOf(mount)
    return wish.kind === 'volume' ? [{ name: mount.name, volid: wish.volid }] : []
  })
  const unused = Object.keys(options)
    .filter((name) => /^unused\d+$/.test(name))
    .map((name) => ({ name, volid: asVolumeId(options[name] ?? '') }))
  return [...mounts, ...unused]
}

/** Volumes that are mounted; not those that are unused. */
export function mountedVolumes(options: Options): { readonly name: string; readonly volid: VolumeId }[] {
  return volumesIn(options).filter(({ name }) => isMountName(name))
}

/** What is remembered of its size; 0 for a folder without one. */
export function rememberedSize({ values }: Mount): number {
  return typeof values.size === 'string' ? parseSize(values.size) : 0
}

/** What no mount can be in this release, and what does not go together. */
export function mountErrors(options: Options): Errors {
  const errors: Errors = {}
  const places = new Map<string, string>()
  for (const { name, path, values } of mountsOf(options)) {
    const volume = String(values.volume)
    if (!volume.startsWith('/') && !/^[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]:[^\s:]+$/.test(volume)) {
      errors[name] = `'${volume}' is neither a volume nor the path of a folder`
    } else if (name === 'rootfs' && volume.startsWith('/')) {
      errors[name] = 'the root of a container is a volume: <storage>:<GiB> makes one'
    } else if (name === 'rootfs' && values.idmap !== undefined) {
      errors[name] =
        'idmap: the files of its root are unpacked with the ids of the container: other ids are for mount points'
    } else if (wrongIds(options, values.idmap) !== undefined) {
      errors[name] = wrongIds(options, values.idmap) ?? ''
    } else if (values.quota === true) {
      errors[name] = isUnprivileged(options)
        ? 'quota: the kernel keeps quotas of users for containers without a user namespace alone'
        : 'quota: no quota of users inside in this release'
    } else if (name !== 'rootfs' && (!path.startsWith('/') || /^\/+$/.test(path))) {
      errors[name] = `mp: '${path}' is no absolute path below the root`
    } else if (places.has(normal(path))) {
      errors[name] = `mp: '${path}' is the place of ${places.get(normal(path))} already`
    }
    places.set(normal(path), name)
  }
  return errors
}

const normal = (path: string) => path.replaceAll(/\/+/g, '/').replace(/\/$/, '')
