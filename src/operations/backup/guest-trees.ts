/** Which trees of a container a backup holds, and why the others are left out. */
import type { VolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { type Mount, mountsOf, wishOf } from '#guests/lxc/mountpoint.ts'

export interface GuestTree {
  /** `rootfs`, `mp0` */
  readonly name: string
  /** Folder inside. */
  readonly path: string
  readonly volid: VolumeId
  readonly mount: Mount
}

export interface LeftOutMount {
  readonly mount: string
  readonly path: string
  readonly reason: 'disabled' | 'not a volume'
}

/** Of mount points those with `backup=1`: what is nowhere else is asked for. A folder of the node is nobody's volume. */
export function treesToBackUp(options: Options): { included: GuestTree[]; leftOut: LeftOutMount[] } {
  const [included, leftOut]: [GuestTree[], LeftOutMount[]] = [[], []]
  for (const mount of mountsOf(options)) {
    const { name, path, values } = mount
    const wish = wishOf(mount)
    if (wish.kind !== 'volume') leftOut.push({ mount: name, path, reason: 'not a volume' })
    else if (name !== 'rootfs' && values.backup !== true) leftOut.push({ mount: name, path, reason: 'disabled' })
    else included.push({ name, path, volid: wish.volid, mount })
  }
  return { included, leftOut }
}
