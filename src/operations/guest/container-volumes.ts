/**
 * Turns what mounts of a container ask for into volumes: `local:8` becomes `local:100/vm-100-disk-0.raw,size=8G`, or a
 * folder where the storage holds folders to a size, and `local:0` a folder without a size of its own. Undo frees by looking, as of virtual machines (`volumes.ts`).
 */
import { chmod, chown, stat } from 'node:fs/promises'
import { formatSize, MiB } from '#base/bytes.ts'
import { invalid } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { isOwned } from '#guests/config.ts'
import { rootOfMount } from '#guests/lxc/mount-ids.ts'
import { type Mount, mountOf, printMount, wishOf } from '#guests/lxc/mountpoint.ts'
import { makeExt4 } from '#host/disks/ext4.ts'
import type { Host } from '#host/host.ts'
import type { StorageService } from '#storage/service.ts'

export interface MountContext {
  readonly vmid: Vmid
  readonly storage: StorageService
  readonly host: Host
  readonly log: (line: string) => void
}

/** A file system needs room for itself. */
const smallestBytes = 16 * MiB

/** The texts of the named mounts once their volumes exist. New volumes are empty. */
export async function makeMounts(
  options: Options,
  names: readonly string[],
  context: MountContext,
): Promise<Record<string, string>> {
  const made: Record<string, string> = {}
  for (const name of names) made[name] = await settle(mountOf(name, options[name] ?? ''), options, context)
  return made
}

async function settle(mount: Mount, options: Options, context: MountContext): Promise<string> {
  const wish = wishOf(mount)
  switch (wish.kind) {
    case 'path':
      await requireFolder(mount, wish.path)
      return printMount(mount, {})
    case 'volume':
      return attach(mount, wish.volid, context)
    case 'allocate':
      return allocate(mount, wish, { ...context, root: rootOfMount(options, mount.values.idmap) })
    default:
      return wish satisfies never
  }
}

async function requireFolder({ name }: Mount, path: string): Promise<void> {
  const facts = await stat(path).catch((cause: unknown) => {
    throw invalid({ [name]: `folder '${path}' does not exist` }, { cause })
  })
  if (!facts.isDirectory()) throw invalid({ [name]: `'${path}' is no folder` })
}

async function attach(mount: Mount, volid: VolumeId, { storage, vmid }: MountContext): Promise<string> {
  const { content, format, sizeBytes } = await storage.describe(volid)
  if (!isOwned(volid, vmid)) throw invalid({ [mount.name]: `volume '${volid}' belongs to another guest` })
  if (content !== 'rootdir' && format !== 'raw') {
    throw invalid({ [mount.name]: `volume '${volid}' is '${format}', which a container cannot mount` })
  }
  return printMount(mount, { size: sizeBytes === 0 ? undefined : formatSize(sizeBytes) })
}

async function allocate(
  mount: Mount,
  wish: { readonly storage: string; readonly sizeBytes: number },
  { storage, host, vmid, root, log }: MountContext & { readonly root: number },
): Promise<string> {
  const { sizeBytes } = wish
  const { limits: isHeld } = storage.featuresOf(await storage.get(wish.storage)).trees
  if (sizeBytes === 0 || isHeld) {
    const fill = async (path: string) => {
      await chown(path, root, root)
      await chmod(path, 0o755)
    }
    const volid = await storage.plantTree(wish.storage, vmid, fill, sizeBytes === 0 ? undefined : sizeBytes)
    const size = sizeBytes === 0 ? undefined : formatSize(sizeBytes)
    log(`${mount.name}: made ${volid}, which ${size === undefined ? 'has no size of its own' : `may grow to ${size}`}`)
    return printMount(mount, { volume: volid, size })
  }
  if (sizeBytes < smallestBytes) {
    throw invalid({ [mount.name]: `${formatSize(sizeBytes)} is too small for a file system: take 16M or more, or 0` })
  }
  const volid = await storage.allocate({ storage: wish.storage, vmid, sizeBytes, format: 'raw', content: 'rootdir' })
  const { path, sizeBytes: size } = await storage.location(volid)
  await makeExt4(host, path, root)
  log(`${mount.name}: allocated ${volid}`)
  return printMount(mount, { volume: volid, size: formatSize(size) })
}
