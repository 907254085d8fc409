/**
 * Makes a container from another: from a template, from one that is stopped or runs, or from a snapshot.
 *
 * The clone is nobody's twin: it gets a name, addresses and keys of its own. A *linked* clone of a template holds only
 * what differs from it; of anything else its files are copied, as they are, into volumes of its own. One that runs is
 * copied as it was at one moment, which its storages hold as a snapshot meanwhile; where they cannot, nothing says so by
 * pretending.
 */
import { rateOfLimit } from '#base/bytes.ts'
import { Fault, invalid, isFault } from '#base/fault.ts'
import { asVmid, type Vmid, type VolumeId } from '#base/ids.ts'
import { type GuestConfig, hostnameOf, isTemplate, type Options } from '#guests/config.ts'
import { fresh } from '#guests/lxc/change.ts'
import { mountedVolumes, mountOf, mountsOf, printMount, wishOf } from '#guests/lxc/mountpoint.ts'
import { factsOfNode } from '#guests/lxc/node-facts.ts'
import { setUpCopy } from '#guests/lxc/setup/set-up.ts'
import { insideOf, toldOf } from '#guests/lxc/told.ts'
import { copyTree } from '#host/files/copy-tree.ts'
import type { StorageService } from '#storage/service.ts'
import { isBase, parseVolumeId } from '#storage/volume.ts'
import { operation } from '#tasks/operation.ts'
import { markOf } from '../storage/aside.ts'
import type { MountContext } from './container-volumes.ts'
import { type CopiedMounts, copyVolumes } from './copy-container-volumes.ts'
import type { CreateContainerDeps } from './create-container.ts'
import { intoPool } from './last-steps.ts'
import { requireSnapshot } from './snapshot-config.ts'
import { isSuspended, takeMoment } from './snapshot-container.ts'
import { dropEverywhere } from './snapshot-disks.ts'
import { freeNewVolumes, volumesOf } from './volumes.ts'

export interface CloneContainer {
  /** The container to clone. */
  readonly vmid: number
  readonly newid: number
  readonly hostname?: string | undefined
  readonly description?: string | undefined
  /** Default: false for a template, true for anything else. */
  readonly full?: boolean | undefined
  readonly snapshot?: string | undefined
  /** Default: where each volume of the source is. */
  readonly storage?: string | undefined
  /** KiB per second, of a full clone. */
  readonly bwlimit?: number | undefined
  /** Pool to put the new container in. */
  readonly pool?: string | undefined
}

const tagOf = (upid: string) => `clone-${markOf(upid)}`

export const cloneContainer = operation<CloneContainer, CreateContainerDeps>('vzclone', {
  id: ({ vmid }) => vmid,
  locks: ({ vmid, newid }) => [`guest/${vmid}`, `guest/${newid}`],
})
  .step('reservation', {
    do: async ({ params, deps, task }) => {
      const [vmid, newid] = [asVmid(params.vmid), asVmid(params.newid)]
      await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid, 'lxc')
      const plan = planClone(config, params)
      const isRunning = await deps.guests.isRunning(vmid)
      const isMoving = isRunning && !plan.isLinked && params.snapshot === undefined
      if (plan.isLinked) await requireLinks(deps.storage, plan.volumes)
      if (isMoving) await requireMoment(deps, vmid, plan.volumes)
      await deps.guests.reserve(newid, task.upid, 'lxc')
      const before = await volumesOf(deps.storage, newid)
      return { ...plan, before, isMoving, isSuspended: await isSuspended(deps, vmid) }
    },
    undo: ({ params, deps, task }) => deps.guests.release(asVmid(params.newid), task.upid),
  })
  .step('moment', {
    do: async ({ params, deps, done, log, task }) => {
      const { isMoving, volumes } = done.reservation
      if (!isMoving) return
      const heldMs = await takeMoment(deps, asVmid(params.vmid), volumes, tagOf(task.upid))
      if (heldMs !== undefined) log(`the container was held for ${heldMs} ms`)
    },
    undo: async ({ params, deps, done, task }) => {
      const { reservation } = done
      if (reservation?.isMoving !== true) return
      const vmid = asVmid(params.vmid)
      await deps.guests.letGo(vmid, reservation)
      await dropEverywhere(deps, vmid, reservation.volumes, tagOf(task.upid))
    },
    always: true,
  })
  .step('volumes', {
    do: async ({ params, deps, done, log, signal, task }): Promise<CopiedMounts> => {
      const { options, isLinked, isMoving } = done.reservation
      const context = { vmid: asVmid(params.newid), storage: deps.storage, host: deps.host, log }
      if (isLinked) return { mounts: await linkVolumes(options, context), empty: [] }
      const snapshot = isMoving ? tagOf(task.upid) : params.snapshot
      const bytesPerSecond = rateOfLimit(params.bwlimit)
      return copyVolumes(options, { ...context, snapshot, to: params.storage, bytesPerSecond, signal })
    },
    undo: async ({ params, deps, done, task }) => {
      const newid = asVmid(params.newid)
      if (!(await deps.guests.isMadeBy(newid, task.upid))) return
      await deps.guests.unwrite(newid, task.upid)
      await freeNewVolumes(deps, newid, done.reservation?.before ?? [])
      // A volume may have been half made.
      await deps.storage.sweep()
    },
  })
  .step('files', {
    do: async ({ params, deps, done, log, warn, signal, task }) => {
      const { guests, host } = deps
      const [vmid, newid] = [asVmid(params.vmid), asVmid(params.newid)]
      const { options, isMoving } = done.reservation
      const { mounts, empty } = done.volumes
      const copy = { ...options, ...mounts }
      const setUp = async (rootfs = '') =>
        setUpCopy(host, insideOf(copy, rootfs, warn), toldOf(newid, copy, await factsOfNode()))
      if (empty.length === 0) return guests.withVolumes(newid, copy, ({ rootfs }) => setUp(rootfs))
      const at = isMoving ? tagOf(task.upid) : params.snapshot
      const from = Object.fromEntries(empty.map((name) => [name, options[name] ?? '']))
      return guests.withVolumes(
        vmid,
        from,
        (sources) =>
          guests.withVolumes(newid, copy, async (targets) => {
            for (const name of empty) {
              log(`copying ${name}`)
              const both = { source: sources[name] ?? '', target: targets[name] ?? '' }
              await copyTree(host, { ...both, bytesPerSecond: rateOfLimit(params.bwlimit), signal })
            }
            await setUp(targets.rootfs)
          }),
        at,
      )
    },
    undo: async ({ params, deps, done, task }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.closeVolumes(asVmid(params.newid))
      await deps.guests.closeVolumes(vmid, tagOf(task.upid))
      if (params.snapshot !== undefined) await deps.guests.closeVolumes(vmid, params.snapshot)
      // The lock is ours, and it did not run: what is open of the source was opened to read it.
      else if (done.reservation?.isMoving === false && !(await deps.guests.isRunning(vmid))) {
        await deps.guests.closeVolumes(vmid)
      }
    },
  })
  // No undo: giving back the reservation takes the configuration with it.
  .step('config', {
    do: async ({ params, deps, done, task }) => {
      const named = { ...done.reservation.options, ...done.volumes.mounts }
      await deps.guests.writeConfig(asVmid(params.newid), fresh(named, deps.random), { owner: task.upid })
    },
  })
  .step(
    'pool',
    intoPool(({ newid }) => newid),
  )

type ContainerClonePlan = {
  /** Of the source, without what only it can have. */
  readonly options: Options
  readonly volumes: readonly VolumeId[]
  readonly isLinked: boolean
}

/**
 * What the clone comes to, decided without touching anything.
 * @throws Fault `missing` for the snapshot, `invalid` or `failed` in PVE's words for what cannot be
 */
export function planClone(
  config: Pick<GuestConfig, 'options' | 'snapshots'>,
  request: Omit<CloneContainer, 'newid'>,
): ContainerClonePlan {
  const { vmid, hostname, snapshot, storage, full = !isTemplate(config.options) } = request
  const from = snapshot === undefined ? config.options : requireSnapshot(config, snapshot).options
  const kept = Object.entries(from).filter(([name]) => !/^(unused\d+|lock|parent|template)$/.test(name))
  const description = request.description ?? config.options.description
  const options = {
    ...Object.fromEntries(kept),
    hostname: hostname ?? `Copy-of-${hostnameOf(from, vmid)}`,
    ...(description === undefined ? {} : { description }),
  }
  const unmade = mountsOf(options).find((mount) => wishOf(mount).kind === 'allocate')
  if (unmade) throw invalid({ vmid: `${unmade.name} of CT ${vmid} has no volume yet` })
  const volumes = mountedVolumes(options).map(({ volid }) => volid)
  if (!full) requireLinkable(volumes, storage)
  return { options, volumes, isLinked: !full }
}

function requireLinkable(volumes: readonly VolumeId[], storage: string | undefined): void {
  if (storage !== undefined) throw invalid({ storage: 'parameter not allowed for linked clones' })
  for (const volid of volumes) {
    const { name } = parseVolumeId(volid)
    if ((name.kind === 'image' || name.kind === 'tree') && isBase(name)) continue
    throw noLinks(volid, 'Only templates can be cloned linked: make a full clone (--full 1), or a template first.')
  }
}

function noLinks(volid: VolumeId, remedy: string): Fault {
  return new Fault('failed', `Linked clone feature for '${volid}' is not available`, { remedy })
}

/** @throws Fault `failed` in PVE's words for a volume that none a container can mount can be linked to */
export async function requireLinks(storage: StorageService, volumes: readonly VolumeId[]): Promise<void> {
  for (const volid of volumes) {
    if (await isMountableLinked(storage, volid)) continue
    throw noLinks(volid, 'Its storage has no linked clones of such volumes: make a full clone (--full 1).')
  }
}

/** What refers to another file inside an image is for QEMU to read; a container mounts what the kernel can. */
export async function isMountableLinked(storage: StorageService, volid: VolumeId): Promise<boolean> {
  try {
    return (await storage.linkedFormat(volid)) !== 'qcow2'
  } catch (fault) {
    if (isFault(fault, 'invalid')) return false
    throw fault
  }
}

/** @throws Fault in PVE's words when the storages cannot hold a moment of what runs */
async function requireMoment(
  { storage }: CreateContainerDeps,
  vmid: Vmid,
  volumes: readonly VolumeId[],
): Promise<void> {
  try {
    for (const volid of volumes) await storage.snapshots(volid)
  } catch (cause) {
    if (!isFault(cause, 'failed')) throw cause
    throw new Fault('conflict', 'Cannot do full clones on a running container without snapshots', {
      cause,
      remedy: `Stop it for that: hako ct shutdown ${vmid}; or have its volumes on a storage with snapshots.`,
    })
  }
}

async function linkVolumes(options: Options, { vmid, storage, log }: MountContext): Promise<Record<string, string>> {
  const made: Record<string, string> = {}
  for (const { name, volid } of mountedVolumes(options)) {
    const volume = await storage.link(volid, vmid)
    made[name] = printMount(mountOf(name, options[name] ?? ''), { volume })
    log(`${name}: linked to ${volid} as ${volume}`)
  }
  return made
}
