/**
 * Moves a volume of a stopped container to another storage: its files are copied, the configuration is switched, and
 * the old volume goes, or stays as unused.
 */
import { formatSize, rateOfLimit } from '#base/bytes.ts'
import { Fault, missing } from '#base/fault.ts'
import { asVmid, splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { type GuestConfig, isTemplate, type Options, requireDigest, takeBack } from '#guests/config.ts'
import { keepUnused } from '#guests/lxc/change.ts'
import { isMountName, mountOf, volumesIn, wishOf } from '#guests/lxc/mountpoint.ts'
import type { GuestService } from '#guests/service.ts'
import { copyTree } from '#host/files/copy-tree.ts'
import type { Host } from '#host/host.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { erasure } from './change-steps.ts'
import { copyVolumes } from './copy-container-volumes.ts'
import { aboutOneGuest } from './one-guest.ts'
import { bringBackAll, freeNewVolumes, heldVolumes, setAsideAll, volumesOf } from './volumes.ts'

export interface MoveVolume {
  readonly vmid: number
  /** `rootfs`, `mp0`, `unused1` */
  readonly volume: string
  readonly storage: string
  /** Destroy the old volume instead of keeping it as unused. */
  readonly delete?: boolean | undefined
  readonly digest?: string | undefined
  /** KiB per second. */
  readonly bwlimit?: number | undefined
}

export interface MoveVolumeDeps {
  readonly guests: GuestService
  readonly storage: StorageService
  readonly host: Host
}

export const moveVolume = operation<MoveVolume, MoveVolumeDeps>('vzmove', {
  upidType: 'move_volume',
  ...aboutOneGuest,
})
  .step('plan', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid, 'lxc')
      const old = planVolumeMove(config, params)
      await deps.guests.reap(vmid)
      const free = params.delete === true ? [old] : []
      return { old, free, before: config.options, volumes: await volumesOf(deps.storage, vmid) }
    },
  })
  .step('erasure', erasure)
  .step('volume', {
    do: async ({ params, deps, done, log, signal }) => {
      const { old, before } = done.plan
      const context = { vmid: asVmid(params.vmid), storage: deps.storage, host: deps.host, to: params.storage }
      const bytesPerSecond = rateOfLimit(params.bwlimit)
      const { mounts, empty } = await copyVolumes(await asMount(deps.storage, before, params.volume, old), {
        ...context,
        bytesPerSecond,
        log,
        signal,
      })
      const [{ name, volid } = missingMount()] = volumesIn(mounts)
      return { volid, text: mounts[name] ?? '', isEmpty: empty.length > 0 }
    },
    undo: async ({ params, deps, done }) => {
      if (!done.plan) return
      await freeNewVolumes(deps, asVmid(params.vmid), done.plan.volumes)
      // A volume may have been half made.
      await deps.storage.sweep()
    },
  })
  .step('files', {
    do: async ({ params, deps, done, log, signal }) => {
      const { volid, isEmpty } = done.volume
      if (!isEmpty) return
      // Both at once, under names only this step knows.
      const both = { rootfs: done.plan.old, mp0: `${volid},mp=/copy` }
      await deps.guests.withVolumes(asVmid(params.vmid), both, async ({ rootfs = '', mp0 = '' }) => {
        log(`copying ${params.volume}`)
        const bytesPerSecond = rateOfLimit(params.bwlimit)
        await copyTree(deps.host, { source: rootfs, target: mp0, bytesPerSecond, signal })
      })
    },
    undo: ({ params, deps }) => deps.guests.closeVolumes(asVmid(params.vmid)),
  })
  .step('config', {
    do: async ({ params, deps, done }) => {
      await deps.guests.changeConfig(asVmid(params.vmid), (now) =>
        movedOptions(now, params, done.plan.old, done.volume),
      )
    },
    undo: async ({ params, deps, done: { plan, volume } }) => {
      if (!plan || !volume) return
      const written = movedOptions(plan.before, params, plan.old, volume)
      await deps.guests.changeConfig(asVmid(params.vmid), (now) => takeBack(now, plan.before, written))
    },
  })
  .step('old volume', {
    do: ({ deps, done, task, log, warn }) => setAsideAll(deps.storage, done.plan.free, { upid: task.upid, log, warn }),
    undo: ({ deps, done, task }) => bringBackAll(deps.storage, done.plan?.free ?? [], task.upid),
  })

/**
 * The volume that is to move, found without touching anything.
 * @throws Fault in PVE's words for a move that is none, or that would tear a snapshot apart
 */
export function planVolumeMove(config: GuestConfig, params: MoveVolume): VolumeId {
  const { snapshots = {} } = config
  requireDigest(config, params.digest)
  const old = requireMovable(asVmid(params.vmid), config, params.volume)
  if (splitVolumeId(old).storage === params.storage) {
    throw new Fault('failed', `you can't move to the same storage with same format`, {
      remedy: `'${params.volume}' is on storage '${params.storage}' already.`,
    })
  }
  if (params.delete === true && heldVolumes({ options: {}, snapshots }).includes(old)) {
    throw new Fault('conflict', `you can't move a volume with snapshots and delete the source`, {
      remedy: 'Leave out delete, or delete the snapshots first.',
    })
  }
  return old
}

/** The volume a stopped container has under that name. @throws Fault `missing`, `conflict` */
export function requireMovable(vmid: Vmid, { options, running }: GuestConfig, volume: string): VolumeId {
  const text = options[volume]
  if (text !== undefined && isMountName(volume) && wishOf(mountOf(volume, text)).kind === 'path') {
    throw new Fault('conflict', `'${volume}' is a folder of the node, which cannot be moved`)
  }
  const volid = volumesIn(options).find(({ name }) => name === volume)?.volid
  if (volid === undefined) throw missing('volume', volume)
  if (isTemplate(options)) throw new Fault('conflict', 'the volumes of a template cannot be moved')
  if (running) {
    throw new Fault('conflict', 'cannot move volumes of a running container', {
      remedy: `Stop it first: hako ct shutdown ${vmid}.`,
    })
  }
  return volid
}

/** The volume as the one mount of a container like this. What is unused has no text, but a size. */
async function asMount(storage: StorageService, options: Options, volume: string, volid: VolumeId): Promise<Options> {
  const kept = options.unprivileged === undefined ? {} : { unprivileged: options.unprivileged }
  if (isMountName(volume)) return { ...kept, [volume]: options[volume] ?? '' }
  const { sizeBytes } = await storage.describe(volid)
  return { ...kept, rootfs: sizeBytes === 0 ? volid : `${volid},size=${formatSize(sizeBytes)}` }
}

function missingMount(): never {
  throw new Error('the copy of one mount is no mount')
}

interface Moved {
  readonly volid: VolumeId
  readonly text: string
}

function movedOptions(
  options: Options,
  { volume, delete: isDeleted }: Pick<MoveVolume, 'volume' | 'delete'>,
  old: VolumeId,
  moved: Moved,
): Options {
  const isThere = volumesIn(options).some((holder) => holder.name === volume && holder.volid === old)
  if (!isThere) return options
  const next: Record<string, string> = { ...options, [volume]: isMountName(volume) ? moved.text : moved.volid }
  if (isDeleted !== true) keepUnused(next, old)
  return next
}
