/**
 * Makes a virtual machine from another: from a template, from one that is stopped or runs, or from a snapshot.
 *
 * The clone is nobody's twin: it gets addresses and ids of its own. A *linked* clone of a template holds only what
 * differs from it; a *full* one stands on its own.
 */
import { formatSize } from '#base/bytes.ts'
import { Fault, invalid, missing } from '#base/fault.ts'
import { asVmid, type Vmid, type VolumeId } from '#base/ids.ts'
import { type GuestConfig, isTemplate, nameOf, type Options } from '#guests/config.ts'
import { driveNameParts, driveOf, printDrive, volumesIn, wishOf } from '#guests/qemu/drive.ts'
import { completed, qemuVersion, unique } from '#guests/qemu/new-guest.ts'
import { isBase, parseVolumeId } from '#storage/volume.ts'
import { operation } from '#tasks/operation.ts'
import { leaveGuest, type SourceDeps } from '../backup/guest-source.ts'
import { intoPool } from './last-steps.ts'
import { cloneDisks } from './clone-disks.ts'
import { ownCloudInits } from './cloud-init-drive.ts'
import type { CreateDeps } from './create.ts'
import { diskVolumes, type OpenDisk } from './snapshot-disks.ts'
import { freeNewVolumes, volumesOf } from './volumes.ts'

export interface CloneGuest {
  /** The guest to clone. */
  readonly vmid: number
  readonly newid: number
  readonly name?: string | undefined
  readonly description?: string | undefined
  /** Default: false for a template, true for anything else. */
  readonly full?: boolean | undefined
  readonly snapshot?: string | undefined
  readonly storage?: string | undefined
  readonly format?: 'raw' | 'qcow2' | undefined
  /** KiB per second. */
  readonly bwlimit?: number | undefined
  /** Pool to put the new guest in. */
  readonly pool?: string | undefined
}

export type CloneDeps = SourceDeps & CreateDeps

export const cloneGuest = operation<CloneGuest, CloneDeps>('qmclone', {
  id: ({ vmid }) => vmid,
  locks: ({ vmid, newid }) => [`guest/${vmid}`, `guest/${newid}`],
})
  .step('reservation', {
    do: async ({ params, deps, task }) => {
      const [vmid, newid] = [asVmid(params.vmid), asVmid(params.newid)]
      await deps.guests.requireUnlocked(vmid)
      const plan = planClone(vmid, await deps.guests.config(vmid), params)
      await deps.guests.reserve(newid, task.upid)
      return { ...plan, before: await volumesOf(deps.storage, newid) }
    },
    undo: ({ params, deps, task }) => deps.guests.release(asVmid(params.newid), task.upid),
  })
  .step('volumes', {
    do: async ({ params, deps, done, log, progress, signal }) => {
      const [source, target] = [asVmid(params.vmid), asVmid(params.newid)]
      const { disks, isLinked } = done.reservation
      const { snapshot, storage, format, bwlimit: limitKiB } = params
      const config = await deps.guests.config(source)
      const how = { snapshot, storage, format, limitKiB, log, progress, signal }
      return cloneDisks(deps, { source, config, target, disks, isLinked, ...how })
    },
    undo: async ({ params, deps, done, task }) => {
      const newid = asVmid(params.newid)
      // What a process that died left in the running guest it was reading.
      if (await deps.guests.exists(asVmid(params.vmid))) await leaveGuest(deps, asVmid(params.vmid))
      if (!(await deps.guests.isMadeBy(newid, task.upid))) return
      await deps.guests.unwrite(newid, task.upid)
      await freeNewVolumes(deps, newid, done.reservation?.before ?? [])
      // A disk may have been half made.
      await deps.storage.sweep()
    },
  })
  // No undo: the one before frees every new volume.
  .step('cloud-init', {
    do: ({ params, deps, done, log }) => {
      const context = { vmid: asVmid(params.newid), storage: deps.storage, log }
      return ownCloudInits(done.reservation.options, params.storage, context)
    },
  })
  // No undo: giving back the reservation takes the configuration with it.
  .step('config', {
    do: async ({ params, deps, done, task }) => {
      const disks = await drivesWith(deps, done.reservation.options, done.volumes)
      const drives = { ...disks, ...done['cloud-init'] }
      const named = { ...done.reservation.options, ...drives, ...naming(params, done.reservation.options) }
      const provenance = { random: deps.random, clock: deps.clock, qemuVersion: await qemuVersion(deps.host) }
      const options = completed(unique(named, deps.random), provenance)
      await deps.guests.writeConfig(asVmid(params.newid), options, { owner: task.upid })
    },
  })
  .step(
    'pool',
    intoPool(({ newid }) => newid),
  )

type ClonePlan = {
  /** Of the source, without what only it can have. */
  readonly options: Options
  readonly disks: readonly OpenDisk[]
  readonly isLinked: boolean
}

/**
 * What the clone comes to, decided without touching anything.
 * @throws Fault `missing` for the snapshot, `invalid` or `failed` in PVE's words for what cannot be
 */
export function planClone(vmid: Vmid, config: GuestConfig, request: Omit<CloneGuest, 'vmid' | 'newid'>): ClonePlan {
  const { snapshot, storage, format, full = !isTemplate(config.options) } = request
  const kept = snapshot === undefined ? undefined : config.snapshots?.[snapshot]
  if (snapshot !== undefined && !kept) throw missing('snapshot', snapshot)
  const from = kept?.options ?? config.options
  const options = Object.fromEntries(
    Object.entries(from).filter(([name]) => !/^(unused\d+|lock|parent|template)$/.test(name)),
  )
  if (kept && config.options.description !== undefined) options.description = config.options.description
  const disks = diskVolumes(options)
  requireVolumes(vmid, options)
  const isLinked = !full
  if (isLinked) requireLinkable(disks, storage, format)
  return { options, disks, isLinked }
}

function requireLinkable(disks: readonly OpenDisk[], storage: string | undefined, format: string | undefined): void {
  const given = Object.entries({ storage, format }).flatMap(([name, value]) => (value === undefined ? [] : [name]))
  if (given.length > 0) {
    throw invalid(Object.fromEntries(given.map((name) => [name, 'parameter not allowed for linked clones'])))
  }
  for (const { drive, volid } of disks) {
    const { name } = parseVolumeId(volid)
    if (name.kind === 'image' && isBase(name)) continue
    throw new Fault('failed', `Linked clone feature is not supported for drive '${drive}'`, {
      remedy: 'Only templates can be cloned linked: make a full clone, or a template first.',
    })
  }
}

/** A host's own file belongs to nobody, and two guests must not write to it. */
function requireVolumes(vmid: Vmid, options: Options): void {
  for (const name of Object.keys(options)) {
    if (!driveNameParts(name)) continue
    const drive = driveOf(name, options[name] ?? '')
    if (drive.isCdrom || wishOf(drive).kind !== 'path') continue
    throw new Fault('failed', `Full clone feature is not supported for drive '${name}'`, {
      remedy: `It is a file of the node; VM ${vmid} alone may use it.`,
    })
  }
}

function naming({ vmid, name, description }: CloneGuest, options: Options): Options {
  const copyName = `Copy-of-VM-${nameOf(options, vmid).replaceAll(' ', '-')}`
  return { name: name ?? copyName, ...(description === undefined ? {} : { description }) }
}

async function drivesWith(
  { storage }: CloneDeps,
  options: Options,
  volumes: Readonly<Record<string, VolumeId>>,
): Promise<Options> {
  const drives: Record<string, string> = {}
  for (const { name } of volumesIn(options)) {
    const volid = volumes[name]
    if (volid === undefined) continue
    const size = formatSize((await storage.describe(volid)).sizeBytes)
    drives[name] = printDrive(driveOf(name, options[name] ?? ''), { file: volid, size, format: undefined })
  }
  return drives
}
