/** What snapshots of virtual machines and of containers differ in, once they are taken. */
import type { VolumeId } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import type { Options, Snapshot } from '#guests/config.ts'
import type { GuestKind } from '#guests/kind.ts'
import * as container from '#guests/lxc/change.ts'
import { mountedVolumes, volumesIn as volumesOfContainer } from '#guests/lxc/mountpoint.ts'
import { keepUnused } from '#guests/qemu/change.ts'
import { volumesIn } from '#guests/qemu/drive.ts'
import { goneCloudInits } from './cloud-init-drive.ts'
import { diskVolumes, volumesOfSnapshot } from './snapshot-disks.ts'

export interface SnapshotKind {
  readonly kind: GuestKind
  /** Every volume that a snapshot holds content of. */
  readonly volumesOf: (snapshot: Snapshot) => VolumeId[]
  /** What the guest is made of once it is taken back. Volumes it has got since then stay with it, unused. */
  readonly after: (taken: Taken, now: Options, random: Random) => Options
}

/** A snapshot with its name. */
export interface Taken {
  readonly name: string
  readonly snapshot: Snapshot
}

export const machineSnapshots: SnapshotKind = {
  kind: 'qemu',
  volumesOf: volumesOfSnapshot,
  after(taken, now, random) {
    const next = withUnused(taken, now, volumesIn)
    for (const { volid } of diskVolumes(now)) keepUnused(next, volid)
    for (const volid of goneCloudInits(now, next)) keepUnused(next, volid)
    // Software in the guest is told that time went back; with its memory it goes back too.
    const isTold = taken.snapshot.memory === undefined && next.vmgenid !== undefined && next.vmgenid !== '0'
    return isTold ? { ...next, vmgenid: random.uuid() } : next
  },
}

export const containerSnapshots: SnapshotKind = {
  kind: 'lxc',
  volumesOf: ({ options }) => mountedVolumes(options).map(({ volid }) => volid),
  after(taken, now) {
    const next = withUnused(taken, now, volumesOfContainer)
    for (const { volid } of mountedVolumes(now)) container.keepUnused(next, volid)
    return next
  },
}

/** As it was, with the notes and the unused volumes of now. */
function withUnused(
  { name, snapshot }: Taken,
  now: Options,
  holders: (options: Options) => { readonly name: string; readonly volid: VolumeId }[],
): Record<string, string> {
  const next: Record<string, string> = { ...snapshot.options, parent: name }
  if (now.description !== undefined) next.description = now.description
  for (const { name: key, volid } of holders(now)) {
    if (key.startsWith('unused') && holders(next).every((one) => one.volid !== volid)) next[key] = volid
  }
  return next
}
