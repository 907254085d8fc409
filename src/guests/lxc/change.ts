/** What a change of a container's configuration comes to; as of virtual machines (see `qemu/change.ts`), and pure. */
import { Fault, invalid } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import type { ChangePlan, ConfigChange, GuestConfig, Options } from '../config.ts'
import { isOwned, isProtected, normalTags, revertOptions } from '../config.ts'
import { keepUnusedAs, requireInNoSnapshot } from '../kept-volumes.ts'
import { isMountName, mountedVolumes, mountOf, volumesIn, wishOf } from './mountpoint.ts'
import { nicNames, withMac } from './nic.ts'
import { isOption, isServerOption, optionErrors } from './options.ts'

/**
 * @param force destroy the volumes of deleted mount points at once
 * @throws Fault `invalid` naming each wrong option; `conflict` where the guest's state forbids the change
 */
export function planChange(vmid: Vmid, config: GuestConfig, change: ConfigChange, force = false): ChangePlan {
  const set = normalised(change.set)
  requireSense(set, change)
  const options: Record<string, string> = { ...revertOptions(config, change.revert) }
  const free: VolumeId[] = []
  for (const name of change.delete) {
    const volid = volumeIn(name, options)
    delete options[name]
    if (volid === undefined || !isOwned(volid, vmid)) continue
    requireUnprotected(config, name)
    if (force || name.startsWith('unused')) free.push(volid)
    else keepUnused(options, volid)
  }
  for (const [name, text] of Object.entries(set)) replace(options, name, text, vmid)
  const errors = optionErrors(options)
  if (Object.keys(errors).length > 0) throw invalid(errors)
  requireNotInUse(config, free)
  return { options, make: Object.keys(set).filter((name) => needsLook(name, set[name] ?? '')), free }
}

/** One spelling for what clients write in several. */
export function normalised(options: Options): Options {
  const { tags } = options
  return tags === undefined ? options : { ...options, tags: normalTags(tags) }
}

function requireSense(set: Options, change: ConfigChange): void {
  const errors: Record<string, string> = {}
  for (const name of change.delete) {
    if (!isOption(name)) errors.delete = `unknown option '${name}'`
    if (isServerOption(name)) errors.delete = `option '${name}' is written by the server and cannot be deleted`
    if (name === 'rootfs') errors.delete = 'a container cannot be without its rootfs'
    if (set[name] !== undefined) errors[name] = `${name} cannot be set and deleted in one change`
  }
  for (const name of change.revert) if (!isOption(name)) errors.revert = `unknown option '${name}'`
  for (const name of Object.keys(set)) {
    if (/^unused\d+$/.test(name)) {
      errors[name] = 'unused volumes are listed by the server: mount one by naming it, mp0=<volume>,mp=/path'
    }
  }
  if (Object.keys(errors).length > 0) throw invalid(errors)
}

function volumeIn(name: string, options: Options): VolumeId | undefined {
  return volumesIn(options).find((holder) => holder.name === name)?.volid
}

function replace(options: Record<string, string>, name: string, text: string, vmid: Vmid): void {
  const old = volumeIn(name, options)
  options[name] = text
  if (!isMountName(name)) return
  const next = volumeIn(name, { [name]: text })
  if (old !== undefined && old !== next && isOwned(old, vmid)) keepUnused(options, old)
  if (next === undefined) return
  for (const holder of volumesIn(options)) {
    if (holder.volid !== next || holder.name === name) continue
    if (!holder.name.startsWith('unused')) {
      throw invalid({ [name]: `volume '${next}' is in use by ${holder.name} of this guest` })
    }
    delete options[holder.name]
  }
}

const volumeRules = { noun: 'volumes', volumesIn } as const

/** Puts a volume under the first free `unusedN`. */
export function keepUnused(options: Record<string, string>, volid: VolumeId): void {
  keepUnusedAs(volumeRules, options, volid)
}

function needsLook(name: string, text: string): boolean {
  return isMountName(name) && wishOf(mountOf(name, text)).kind !== 'path'
}

function requireUnprotected(config: GuestConfig, name: string): void {
  if (!isProtected(config.options)) return
  throw new Fault('conflict', `can't remove volume '${name}' - protection mode enabled`, {
    remedy: 'Set protection to 0 first.',
  })
}

function requireNotInUse(config: GuestConfig, free: readonly VolumeId[]): void {
  requireInNoSnapshot(volumeRules, config, free)
  const { running = {} } = config
  const used = mountedVolumes(running).find(({ volid }) => free.includes(volid))
  if (!used) return
  throw new Fault('conflict', `volume '${used.volid}' is still in use by ${used.name} of the running guest`, {
    remedy: 'Stop the guest first.',
  })
}

/** The options of a new container, in one spelling. @throws Fault `invalid` naming each wrong option */
export function requireOptions(options: Options): Options {
  const result = normalised(options)
  const errors = optionErrors(result)
  for (const name of Object.keys(result)) {
    if (/^unused\d+$/.test(name)) errors[name] = 'a new guest has no unused volumes'
  }
  if (Object.keys(errors).length > 0) throw invalid(errors)
  return result
}

/** A copy that is nobody's twin: new MAC addresses. */
export function fresh(options: Options, random: Random): Options {
  const result: Record<string, string> = { ...options }
  for (const name of nicNames(options)) result[name] = withMac(name, options[name] ?? '', random, true)
  return result
}

/** What options still lack: MAC addresses. */
export function completed(options: Options, random: Random): Options {
  const result: Record<string, string> = { ...options }
  for (const name of nicNames(options)) result[name] = withMac(name, options[name] ?? '', random)
  return result
}
