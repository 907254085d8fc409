/**
 * What a change of a configuration comes to, decided without touching anything: the options afterwards, the
 * volumes to make before, and the volumes to destroy after. Pure, so that it can be asked before a task is
 * started and again inside it.
 *
 * A disk that leaves its place is not destroyed: its volume stays with the guest as `unusedN`, until that is
 * deleted or the change says `force`.
 */
import { Fault, invalid } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { splitVolumeId } from '#base/ids.ts'
import type { ChangePlan, ConfigChange, GuestConfig, Options } from '../config.ts'
import { isOwned, isProtected, normalTags, revertOptions } from '../config.ts'
import { keepUnusedAs, requireInNoSnapshot } from '../kept-volumes.ts'
import { bootOfPresent } from './boot.ts'
import {
  cloudInitVolumesIn,
  driveNameParts,
  driveOf,
  drivesOf,
  isCloudInit,
  printDrive,
  volumeIn,
  volumesIn,
  wishOf,
} from './drive.ts'
import { planLive } from './live-plan.ts'
import { isOption, isServerOption, optionErrors } from './options.ts'

/**
 * @param force destroy the volumes of deleted drives at once
 * @throws Fault `invalid` naming each wrong option; `conflict` where the guest's state forbids the change
 */
export function planChange(vmid: Vmid, config: GuestConfig, change: ConfigChange, force = false): ChangePlan {
  const set = normalised(change.set)
  requireSense(set, change)
  const options: Record<string, string> = { ...revertOptions(config, change.revert) }
  const free: VolumeId[] = []
  for (const name of change.delete) {
    const text = options[name]
    if (text === undefined) continue
    delete options[name]
    const volid = volumeIn(name, text)
    if (volid === undefined || !isOwned(volid, vmid)) continue
    requireUnprotected(config, name)
    if (force || name.startsWith('unused')) free.push(volid)
    else keepUnused(options, volid)
  }
  for (const [name, text] of Object.entries(set)) replace(options, name, text, vmid)
  // As in Proxmox VE, what goes leaves the boot order too; who names the order must name what is there.
  const boot = set.boot ?? bootOfPresent(options)
  if (boot !== undefined) options.boot = boot
  const errors = optionErrors(options)
  if (Object.keys(errors).length > 0) throw invalid(errors)
  requireNotInUse(config, free, options)
  const had = cloudInitVolumesIn(config.options).map(({ volid }) => volid)
  keepCloudInit(options, had)
  const kept = cloudInitVolumesIn(options).map(({ volid }) => volid)
  // What a cloud-init drive holds can be made again, so it is never left as unused; a running guest keeps what it has open.
  free.push(...had.filter((volid) => !kept.includes(volid) && isOwned(volid, vmid)))
  return { options, make: Object.keys(set).filter((name) => needsLook(name, set[name] ?? '')), free }
}

/** One spelling for what clients write in several. */
export function normalised(options: Options): Options {
  const result: Record<string, string> = {}
  for (const [name, text] of Object.entries(options)) {
    if (name === 'cdrom') result.ide2 = `${text},media=cdrom`
    else if (driveNameParts(name) && isCloudInit(text) && !/media=/.test(text)) result[name] = `${text},media=cdrom`
    else result[name] = name === 'tags' ? normalTags(text) : text
  }
  return result
}

function requireSense(set: Options, change: ConfigChange): void {
  const errors: Record<string, string> = {}
  for (const name of change.delete) {
    if (!isOption(name)) errors.delete = `unknown option '${name}'`
    if (isServerOption(name)) errors.delete = `option '${name}' is written by the server and cannot be deleted`
    if (set[name] !== undefined) errors[name] = `${name} cannot be set and deleted in one change`
  }
  for (const name of change.revert) if (!isOption(name)) errors.revert = `unknown option '${name}'`
  for (const name of Object.keys(set)) {
    if (/^unused\d+$/.test(name))
      errors[name] = 'unused disks are listed by the server: attach one by naming its volume'
  }
  if (Object.keys(errors).length > 0) throw invalid(errors)
}

function replace(options: Record<string, string>, name: string, text: string, vmid: Vmid): void {
  const before = options[name]
  const [old, next] = [before === undefined ? undefined : volumeIn(name, before), volumeIn(name, text)]
  options[name] = text
  if (old !== undefined && old !== next && isOwned(old, vmid)) keepUnused(options, old)
  if (next === undefined) return
  for (const holder of volumesIn(options)) {
    if (holder.volid !== next || holder.name === name) continue
    if (!holder.name.startsWith('unused')) {
      throw invalid({ [name]: `volume '${next}' is in use by drive ${holder.name} of this guest` })
    }
    delete options[holder.name]
  }
}

/** A guest that has a cloud-init drive on the storage it is to be on keeps it, also under another name. */
function keepCloudInit(options: Record<string, string>, had: readonly VolumeId[]): void {
  const unused = volumesIn(options).filter(({ name, volid }) => name.startsWith('unused') && isCloudInit(volid))
  for (const drive of drivesOf(options)) {
    const wish = wishOf(drive)
    if (wish.kind !== 'cloudinit') continue
    const { format } = drive.values
    const fits = (volid: VolumeId) =>
      splitVolumeId(volid).storage === wish.storage && (format === undefined || volid.endsWith(`.${String(format)}`))
    const file = [...had, ...unused.map(({ volid }) => volid)].find(fits)
    if (file === undefined) continue
    options[drive.name] = printDrive(drive, { file, format: undefined })
    for (const { name, volid } of unused) if (volid === file) delete options[name]
  }
}

const volumeRules = { noun: 'disks', volumesIn } as const

/** Puts a volume under the first free `unusedN`. */
export function keepUnused(options: Record<string, string>, volid: VolumeId): void {
  keepUnusedAs(volumeRules, options, volid)
}

/** Those options, and the volume among the unused. */
export function withUnused(options: Options, volid: VolumeId): Options {
  const next: Record<string, string> = { ...options }
  keepUnused(next, volid)
  return next
}

function needsLook(name: string, text: string): boolean {
  if (!driveNameParts(name)) return false
  const { kind } = wishOf(driveOf(name, text))
  return kind !== 'empty' && kind !== 'host-cdrom'
}

function requireUnprotected(config: GuestConfig, name: string): void {
  if (isProtected(config.options)) {
    throw new Fault('conflict', `can't remove disk '${name}' - protection mode enabled`, {
      remedy: 'Set protection to 0 first.',
    })
  }
}

/** What the running guest can let go of is taken from it before its volume goes. */
function requireNotInUse(config: GuestConfig, free: readonly VolumeId[], wanted: Options): void {
  requireInNoSnapshot(volumeRules, config, free)
  const { running = {} } = config
  const leaving = planLive(running, wanted).filter(({ kind }) => kind === 'unplug-drive')
  const used = volumesIn(running).find(
    ({ name, volid }) =>
      driveNameParts(name) !== undefined && free.includes(volid) && leaving.every((act) => act.name !== name),
  )
  if (used) {
    throw new Fault('conflict', `volume '${used.volid}' is still in use by drive ${used.name} of the running guest`, {
      remedy: 'Stop the guest first.',
    })
  }
}
