/**
 * Volumes of a container with the content of others: copied by the file system where both are on storages that can,
 * and else made empty, for their files to be copied one by one.
 */
import { GiB, parseSize } from '#base/bytes.ts'
import { splitVolumeId, type VolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { type Mount, mountedVolumes, mountOf, printMount } from '#guests/lxc/mountpoint.ts'
import { parseVolumeId } from '#storage/volume.ts'
import { makeMounts, type MountContext } from './container-volumes.ts'

export type CopiedMounts = {
  /** The texts of the mounts once their volumes exist. */
  readonly mounts: Record<string, string>
  /** Those whose files are still to be copied. */
  readonly empty: readonly string[]
}

export interface CopyContext extends MountContext {
  /** As they were in that snapshot. */
  readonly snapshot?: string | undefined
  /** Storage the copies go to; absent: where each volume is. */
  readonly to?: string | undefined
  readonly bytesPerSecond?: number | undefined
  readonly signal: AbortSignal
}

/** New volumes for every volume these options mount. A folder of the node is the same for both. */
export async function copyVolumes(options: Options, context: CopyContext): Promise<CopiedMounts> {
  const { storage, vmid, snapshot, to, bytesPerSecond, signal, log } = context
  const mounts: Record<string, string> = {}
  const empty: string[] = []
  for (const { name, volid } of mountedVolumes(options)) {
    const mount = mountOf(name, options[name] ?? '')
    const place = to ?? splitVolumeId(volid).storage
    const whole = isTree(volid)
      ? await storage.copyTree({ source: volid, snapshot, storage: place, vmid, bytesPerSecond, signal })
      : undefined
    if (whole === undefined) {
      const made = await makeMounts({ ...options, [name]: emptyLike(mount, place) }, [name], context)
      mounts[name] = made[name] ?? ''
      empty.push(name)
      continue
    }
    mounts[name] = printMount(mount, { volume: whole })
    log(`${name}: copied from ${volid} as ${whole}`)
  }
  return { mounts, empty }
}

function isTree(volid: VolumeId): boolean {
  return parseVolumeId(volid).name.kind === 'tree'
}

/** A wish for a volume of the same kind and size. */
function emptyLike(mount: Mount, storage: string): string {
  const { size } = mount.values
  const bytes = typeof size === 'string' ? parseSize(size) : 0
  return printMount(mount, { volume: `${storage}:${bytes / GiB}`, size: undefined })
}
