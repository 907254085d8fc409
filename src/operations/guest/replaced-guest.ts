/**
 * A guest that a restored one takes the place of.
 *
 * Nothing of it is touched before the new volumes are whole. Volumes of which the backup knows nothing are kept, as
 * unused ones. Snapshots go with the configuration they belong to: what kept volumes hold of them is dropped last of all.
 */
import { Fault } from '#base/fault.ts'
import { asVmid, type Vmid, type VolumeId } from '#base/ids.ts'
import { isOwned, isProtected, type Options, type Snapshots } from '#guests/config.ts'
import { type GuestKind, nounOf } from '#guests/kind.ts'
import type { GuestService } from '#guests/service.ts'
import type { PoolService } from '#pools/service.ts'
import type { StorageService } from '#storage/service.ts'
import type { Step, StepContext } from '#tasks/operation.ts'
import { dropEverywhere } from './snapshot-disks.ts'
import { freeNewVolumes, heldVolumes, volumesOf } from './volumes.ts'

interface Deps {
  readonly guests: GuestService
  readonly storage: StorageService
  readonly pools: Pick<PoolService, 'poolOf'>
}

/** As the journal keeps it; `old` is null where there was no guest. */
export type ReplacedGuest = {
  /** Volumes of the id that were there before. */
  readonly before: readonly string[]
  readonly old: Options | null
  readonly snapshots: Snapshots
  readonly pool: string | null
}

interface Taking {
  readonly vmid: Vmid
  readonly kind: GuestKind
  /** Take the place of a guest that has the id. */
  readonly force?: boolean | undefined
  readonly upid: string
}

/** Reserves the id, or finds that its guest may be replaced. @throws Fault `conflict` */
async function takePlace(deps: Deps, { vmid, kind, force, upid }: Taking): Promise<ReplacedGuest> {
  const { guests } = deps
  const before: string[] = await volumesOf(deps.storage, vmid)
  if (!(await guests.exists(vmid)) || force !== true) {
    await guests.reserve(vmid, upid, kind) // Says who has the id when it is taken.
    return { before, old: null, snapshots: {}, pool: null }
  }
  await requireReplaceable(guests, vmid, kind)
  const { options, snapshots = {} } = await guests.config(vmid, kind)
  return { before, old: { ...options }, snapshots: { ...snapshots }, pool: (await deps.pools.poolOf(vmid)) ?? null }
}

async function requireReplaceable(guests: GuestService, vmid: Vmid, kind: GuestKind): Promise<void> {
  const noun = nounOf[kind]
  const there = await guests.kindOf(vmid)
  const refused = (why: string, remedy: string) =>
    new Fault('conflict', `unable to restore ${noun} ${vmid} - ${why}`, { remedy })
  if (there !== kind) throw refused(`the id is taken by ${nounOf[there]} ${vmid}`, 'Choose an id nobody has.')
  await guests.requireUnlocked(vmid)
  if (isProtected((await guests.config(vmid, kind)).options)) {
    throw refused('protection mode enabled', 'Set protection to 0 first.')
  }
  if (await guests.isRunning(vmid)) throw refused(`${noun} is running`, 'Stop it first.')
}

type VolumesIn = (options: Options) => readonly { readonly volid: VolumeId }[]

/** Old volumes that nothing takes the place of, those among them that only a snapshot had. */
export function keptOf(
  vmid: Vmid,
  { old, snapshots = {} }: Partial<ReplacedGuest>,
  { replaced, volumesIn }: { readonly replaced: readonly VolumeId[]; readonly volumesIn: VolumesIn },
): VolumeId[] {
  const named = new Set(volumesIn(old ?? {}).map(({ volid }) => volid))
  const all = heldVolumes({ options: old ?? {}, snapshots })
  return all.filter((volid) => !replaced.includes(volid) && (named.has(volid) || isOwned(volid, vmid)))
}

/** What kept volumes hold of snapshots the guest no longer has. Which it has is asked of the guest. */
export async function dropForgotten(
  deps: Deps,
  vmid: Vmid,
  { snapshots: before = {} }: Partial<ReplacedGuest>,
  kept: readonly VolumeId[],
): Promise<void> {
  const names = Object.keys(before)
  if (names.length === 0 || !(await deps.guests.exists(vmid))) return
  const { snapshots = {} } = await deps.guests.config(vmid, 'any')
  for (const name of names.filter((one) => snapshots[one] === undefined)) {
    await dropEverywhere(deps, vmid, kept, name)
  }
}

export function withKept(options: Options, kept: readonly VolumeId[]): Options {
  const result: Record<string, string> = { ...options }
  let number = 0
  for (const volid of kept) {
    while (result[`unused${number}`] !== undefined) number += 1
    result[`unused${number}`] = volid
  }
  return result
}

/** Undo of the step that wrote the configuration: a new guest's goes with its reservation. */
export async function bringBackConfig(
  { guests }: Deps,
  vmid: Vmid,
  { old, snapshots = {} }: Partial<ReplacedGuest>,
): Promise<void> {
  if (!old || !(await guests.exists(vmid))) return
  await guests.changeSnapshots(vmid, () => ({ options: old, snapshots }))
}

interface Restoring {
  readonly vmid: number
  readonly force?: boolean | undefined
  readonly pool?: string | undefined
}

interface PoolDeps {
  readonly pools: Pick<PoolService, 'put' | 'takeOut'>
}

/** First step of a restore. Its undo releases only what this task reserved: a guest that was there stays. */
export function placeOf(kind: GuestKind): Step<Restoring, Deps, object, ReplacedGuest> {
  return {
    do: ({ params: { vmid, force }, deps, task }) => {
      return takePlace(deps, { vmid: asVmid(vmid), kind, force, upid: task.upid })
    },
    undo: ({ params, deps, task }) => deps.guests.release(asVmid(params.vmid), task.upid),
  }
}

/** The step that puts the guest into a pool; without one it stays where it was. */
export const intoItsPool: Step<Restoring, PoolDeps, { readonly reservation: ReplacedGuest }, void> = {
  do: ({ params, deps }) => (params.pool === undefined ? undefined : deps.pools.put(params.vmid, params.pool)),
  undo: async ({ params: { vmid, pool }, deps, done: { reservation } }) => {
    if (pool === undefined || !reservation) return
    if (reservation.pool === null) await deps.pools.takeOut(vmid)
    else await deps.pools.put(vmid, reservation.pool)
  },
}

/** Undo of the step that made the new volumes. */
export async function freeMade({
  params,
  deps,
  done,
  task,
}: StepContext<Restoring, Deps, { readonly reservation?: ReplacedGuest }>): Promise<void> {
  const vmid = asVmid(params.vmid)
  // Without a word from the first step nothing tells our volumes from others'; then none were made yet.
  if (!done.reservation) return
  if (await deps.guests.isMadeBy(vmid, task.upid)) await deps.guests.unwrite(vmid, task.upid)
  await freeNewVolumes(deps, vmid, done.reservation.before)
  // A volume may have been half made.
  await deps.storage.sweep()
}

/** Writes what was restored in the place of what was, whose snapshots go. */
export async function writeInPlace(
  { params, deps, done, task, log }: StepContext<Restoring, Deps, { readonly reservation: ReplacedGuest }>,
  options: Options,
): Promise<void> {
  const vmid = asVmid(params.vmid)
  const { old, snapshots } = done.reservation
  if (old === null) await deps.guests.writeConfig(vmid, options, { owner: task.upid })
  else await deps.guests.changeSnapshots(vmid, () => ({ options, snapshots: {} }))
  const names = Object.keys(snapshots)
  if (names.length > 0) log(`snapshots of the guest as it was are removed: ${names.join(', ')}`)
}
