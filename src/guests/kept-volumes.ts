/** Volumes a guest keeps that nothing of it uses just now: as `unusedN`, and for its snapshots. */
import { Fault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import type { GuestConfig, Options } from './config.ts'

/** What a kind of guest calls its volumes, and where its options name them. */
export interface VolumeRules {
  readonly noun: 'disks' | 'volumes'
  readonly volumesIn: (options: Options) => readonly { readonly name: string; readonly volid: VolumeId }[]
}

/** Numbers of `unusedN`. */
export const unusedCount = 256

/** Puts a volume under the first free `unusedN`, unless the options name it already. */
export function keepUnusedAs({ noun, volumesIn }: VolumeRules, options: Record<string, string>, volid: VolumeId): void {
  if (volumesIn(options).some((holder) => holder.volid === volid)) return
  for (let index = 0; index < unusedCount; index += 1) {
    const name = `unused${index}`
    if (options[name] !== undefined) continue
    options[name] = volid
    return
  }
  throw new Fault('exhausted', `the guest has ${unusedCount} unused ${noun}: destroy some of them first`)
}

/** @throws Fault `conflict` naming the snapshot that one of the volumes is needed for */
export function requireInNoSnapshot(
  { volumesIn }: VolumeRules,
  { snapshots = {} }: Pick<GuestConfig, 'snapshots'>,
  free: readonly VolumeId[],
): void {
  for (const [name, { options }] of Object.entries(snapshots)) {
    const kept = volumesIn(options).find(({ volid }) => free.includes(volid))
    if (!kept) continue
    throw new Fault('conflict', `unable to delete '${kept.volid}' - volume is still in use (snapshot '${name}')`, {
      remedy: 'Delete the snapshot first.',
    })
  }
}
