/**
 * Makes a container from a backup, or takes an existing one back to it (`force`).
 *
 * As of virtual machines, nothing of an existing container is touched before the new volumes are whole; see
 * `replaced-guest.ts`. Whose files they are is kept as it is inside, so a container may come back with a user namespace
 * where it had none, and the other way round.
 */
import { formatSize, rateOfLimit } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import { asVmid, asVolumeId, splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { completed, fresh, requireOptions } from '#guests/lxc/change.ts'
import { mountOf, rememberedSize, volumesIn, wishOf } from '#guests/lxc/mountpoint.ts'
import type { Services } from '#services.ts'
import { namingFullStorage } from '#storage/full.ts'
import { operation, type StepContext } from '#tasks/operation.ts'
import { type KeptContainer, openKept } from '../backup/kept-container.ts'
import { type ContainerPlan, planContainer } from './container-plan.ts'
import { makeMounts } from './container-volumes.ts'
import { startWhenMade } from './last-steps.ts'
import { sayTwins } from './twins.ts'
import { aboutOneGuest } from './one-guest.ts'
import {
  bringBackConfig,
  dropForgotten,
  freeMade,
  intoItsPool,
  keptOf,
  placeOf,
  type ReplacedGuest,
  withKept,
  writeInPlace,
} from './replaced-guest.ts'
import { bringBackAll, eraseAll, setAsideAll } from './volumes.ts'

export interface RestoreContainer {
  readonly vmid: number
  /** Volume id of the backup: `local:backup/ct/100/2026-11-20T10:00:00Z`, or of an archive; for root also the path of one. */
  readonly archive: string
  /** Where volumes go; without one, each where it was. */
  readonly storage?: string | undefined
  /** Replace a container that has this id. */
  readonly force?: boolean | undefined
  /** New MAC addresses. */
  readonly unique?: boolean | undefined
  /** Pool to put it in; without one it stays where it was. */
  readonly pool?: string | undefined
  readonly start?: boolean | undefined
  /** KiB per second; 0 for no limit. */
  readonly bwlimit?: number | undefined
  /** Options that differ from the backup's; mounts ask for new volumes. */
  readonly overrides?: Options | undefined
}

export type RestoreContainerDeps = Pick<
  Services,
  'settings' | 'clock' | 'random' | 'host' | 'guests' | 'storage' | 'backup' | 'pools'
>

export const restoreContainer = operation<RestoreContainer, RestoreContainerDeps>('vzrestore', aboutOneGuest)
  .step('reservation', placeOf('lxc'))
  .step('erasure', {
    do: () => {},
    // After success this is the deed itself. After a failure nothing is set aside any more, and the guest has its snapshots.
    async undo({ params, deps, done, task }) {
      const vmid = asVmid(params.vmid)
      await eraseAll(deps.storage, replacedIn(done), task.upid)
      await dropForgotten(deps, vmid, done.reservation ?? {}, keptIn(vmid, done))
    },
    always: true,
  })
  .step('volumes', {
    async do({ params, deps, log, warn, signal, task }) {
      await using kept = await openKept(deps, params.archive, { log, warn, signal })
      const { storage, overrides } = params
      const plan = planContainer(kept, { storage, overrides, isRoot: task.user === 'root@pam', log, warn })
      await requireStorages(deps, plan, kept)
      const context = { vmid: asVmid(params.vmid), storage: deps.storage, host: deps.host, log }
      const made = await makeMounts({ ...plan.options, ...plan.wishes }, Object.keys(plan.wishes), context)
      return { ...plan, made }
    },
    undo: freeMade,
  })
  .step('files', {
    do: (context) => fillVolumes(context, context.done.volumes),
    undo: ({ params, deps }) => closeIfStopped(deps, asVmid(params.vmid)),
  })
  .step('old-volumes', {
    do: ({ deps, done, task, log, warn }) =>
      setAsideAll(deps.storage, replacedIn(done), { upid: task.upid, log, warn }),
    undo: ({ deps, done, task }) => bringBackAll(deps.storage, replacedIn(done), task.upid),
  })
  .step('config', {
    async do(context) {
      const { params, deps, done, log } = context
      const restored = requireOptions({ ...done.volumes.options, ...done.volumes.made })
      const own = params.unique ? fresh(restored, deps.random) : completed(restored, deps.random)
      await writeInPlace(context, withKept(own, keptIn(asVmid(params.vmid), done)))
      await sayTwins(deps.guests, { vmid: asVmid(params.vmid), kind: 'lxc', options: own }, log)
    },
    undo: ({ params, deps, done }) => bringBackConfig(deps, asVmid(params.vmid), done.reservation ?? {}),
  })
  .step('pool', intoItsPool)
  .step('start', startWhenMade)

type Context = StepContext<RestoreContainer, RestoreContainerDeps, unknown>
type Planned = ContainerPlan & { readonly made: Options }

async function fillVolumes({ params, deps, log, progress, signal }: Context, planned: Planned): Promise<void> {
  const vmid = asVmid(params.vmid)
  const options = { ...planned.options, ...planned.made }
  const filled = Object.fromEntries(planned.trees.map((name) => [name, planned.made[name] ?? '']))
  // What is left out was told when the container was planned.
  await using kept = await openKept(deps, params.archive, { log: () => {}, warn: () => {}, signal })
  log(`restoring ${params.archive} (${kept.says})`)
  await kept.fill({
    options,
    inPlaces: (act) => deps.guests.withVolumes(vmid, filled, act),
    inWhole: (act) => deps.guests.withWholeTree(vmid, { ...filled, unprivileged: options.unprivileged ?? '1' }, act),
    rateBytesPerSecond: rateOfLimit(params.bwlimit),
    inRoom: (name, work) =>
      inRoom(deps, { vmid, name, text: filled[name] ?? '', dataBytes: kept.trees.get(name) }, work),
    log,
    onProgress: (name, fraction) => progress(`write ${name}`, fraction),
    signal,
  })
}

/** Where volumes were may be no storage here. @throws Fault `missing`; `exhausted` where there is no room for them */
async function requireStorages(
  { storage }: RestoreContainerDeps,
  { wishes, trees }: ContainerPlan,
  kept: KeptContainer,
): Promise<void> {
  for (const [name, text] of Object.entries(wishes)) {
    const wish = wishOf(mountOf(name, text))
    if (wish.kind !== 'allocate') continue
    try {
      await storage.requireContent(wish.storage, 'rootdir')
    } catch (cause) {
      if (!isFault(cause, 'missing')) throw cause
      throw new Fault('missing', `${cause.message} here, where ${name} was`, {
        cause,
        remedy: 'Name a storage of this node for all volumes: `--storage <storage>`.',
      })
    }
    const neededBytes = trees.includes(name) ? kept.trees.get(name) : undefined
    if (neededBytes !== undefined) await storage.requireSpace(wish.storage, neededBytes, `${name} of the container`)
  }
}

interface Volume {
  readonly vmid: Vmid
  readonly name: string
  /** Of the mount. */
  readonly text: string
  readonly dataBytes: number | undefined
}

/** A full storage is named, and whose volume it was; a volume with a size of its own may be what is full. */
function inRoom<T>(
  { storage }: RestoreContainerDeps,
  { vmid, name, text, dataBytes }: Volume,
  work: () => Promise<T>,
): Promise<T> {
  const place = splitVolumeId(volumesIn({ [name]: text })[0]?.volid ?? asVolumeId('')).storage
  const size = rememberedSize(mountOf(name, text))
  const what = `${name} of CT ${vmid}${size === 0 ? '' : `, which has ${formatSize(size)}`}`
  const availableBytes = async () => (await storage.status(place)).availableBytes
  return namingFullStorage({ storage: place, what, neededBytes: dataBytes, availableBytes }, work)
}

/** A container that this task has started keeps its volumes; its start is undone before. */
async function closeIfStopped({ guests }: RestoreContainerDeps, vmid: Vmid): Promise<void> {
  if (!(await guests.isRunning(vmid))) await guests.closeVolumes(vmid)
}

interface SoFar {
  readonly reservation?: ReplacedGuest
  readonly volumes?: Planned
}

/** Old volumes that a restored one takes the place of. */
function replacedIn({ reservation, volumes }: SoFar): VolumeId[] {
  const made = volumes?.made ?? {}
  return volumesIn(reservation?.old ?? {}).flatMap(({ name, volid }) => (made[name] === undefined ? [] : [volid]))
}

/** Old volumes of which the backup knows nothing. */
function keptIn(vmid: Vmid, done: SoFar): VolumeId[] {
  return keptOf(vmid, done.reservation ?? {}, { replaced: replacedIn(done), volumesIn })
}
