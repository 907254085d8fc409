/**
 * A guest's configuration: options in Proxmox VE's spelling, all of them text.
 *
 * The stored options are what is *wanted*. What a running guest was started with is kept in its run record,
 * and whatever differs is *pending*. The rejected way, a second stored set of pending options, needs
 * somebody to apply it at the right moment; here a start uses what is wanted, and nothing is pending when
 * nothing runs.
 */
import { createHash } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { splitVolumeId } from '#base/ids.ts'

/** Options by name: `memory`, `scsi0`, `net0` … A type of its own, because every device reads it. */
export type Options = Readonly<Record<string, string>>

export type KeptMemory = {
  readonly options: Options
  readonly machine: string
  /** The volume it is in; absent: the first disk. */
  readonly volume?: VolumeId
}

/** One moment of a guest: what it was made of then. The content is in its disks, under the snapshot's name. */
export type Snapshot = {
  /** As they were wanted then; `parent` is the snapshot before it. */
  readonly options: Options
  /** Seconds since 1970. */
  readonly takenAt: number
  readonly description: string
  /** Present when memory was kept too: what the guest ran with, and on which machine. */
  readonly memory?: KeptMemory
}

/** By name. */
export type Snapshots = Readonly<Record<string, Snapshot>>

/** What the disks of a restored guest still lack is served from its backup, while it runs. */
export type Filling = {
  /** Volume id of the backup. */
  readonly from: VolumeId
  /** Who restored it. */
  readonly by: string
  /** Drives that are not whole yet. */
  readonly drives: readonly string[]
  /** Of the copying; 0: no limit. */
  readonly bytesPerSecond: number
}

export interface GuestConfig {
  /** What is wanted, and what the next start uses. */
  readonly options: Options
  /** What the running guest was started with; absent when it is stopped. */
  readonly running?: Options
  /** Absent: none. */
  readonly snapshots?: Snapshots
  /** SHA-1 of the wanted options, hexadecimal. */
  readonly digest: string
  /** Task that is creating the guest; nobody else may touch it. */
  readonly reservedBy?: string
  /** Its disks are not whole yet. */
  readonly filling?: Filling
}

export interface PendingItem {
  readonly key: string
  /** Value in force. */
  readonly value?: string
  /** Value from the next start on. */
  readonly pending?: string
  /** The option goes at the next start. */
  readonly isDeleted: boolean
}

/** A change as a client asks for it. */
export interface ConfigChange {
  readonly set: Options
  readonly delete: readonly string[]
  /** Options to take back to what the running guest has. */
  readonly revert: readonly string[]
}

/** What a change comes to. */
export interface ChangePlan {
  /** Options as wanted; disks in `make` still hold their wish. */
  readonly options: Options
  /** Names of disks whose text asks for a new volume, or names one that must be looked at. */
  readonly make: readonly string[]
  /** Volumes to destroy once the configuration no longer holds them. */
  readonly free: readonly VolumeId[]
}

/** True when carrying out the plan touches storage: then it is a task's work. */
export function touchesStorage(plan: ChangePlan): boolean {
  return plan.make.length > 0 || plan.free.length > 0
}

/** By its name a volume belongs to one guest: `local:100/vm-100-disk-0.raw`, `local:100/subvol-100-disk-0.subvol`. */
export function isOwned(volid: VolumeId, vmid: Vmid): boolean {
  const file = splitVolumeId(volid).name.split('/').at(-1) ?? ''
  return new RegExp(`^(?:vm|base|subvol|basevol)-${vmid}-`).test(file)
}

/** Reads `1`, `on`, `yes`, `true` of a stored boolean. */
export function isOn(text: string | undefined, otherwise: boolean): boolean {
  return text === undefined ? otherwise : /^(1|on|yes|true)$/i.test(text)
}

/** Equal options have equal digests, in whatever order they were written. */
export function digestOf(options: Options): string {
  const lines = Object.keys(options)
    .toSorted()
    .map((key) => `${key}: ${JSON.stringify(options[key])}\n`)
  return createHash('sha1').update(lines.join('')).digest('hex')
}

/** @throws Fault `conflict` when a client's digest is not that of the configuration it wants to change */
export function requireDigest(config: GuestConfig, digest: string | undefined): void {
  if (digest === undefined || digest === config.digest) return
  throw new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
}

/**
 * Options that describe the guest rather than its hardware: a change is in force at once, so it is never
 * pending, and a running guest need not be asked.
 */
const inForceAtOnce = new Set(
  'name description tags onboot startup protection template lock vmstatestorage hookscript hotplug meta parent digest cmode'.split(
    ' ',
  ),
)

function isInForceAtOnce(name: string): boolean {
  return inForceAtOnce.has(name) || /^unused\d+$/.test(name)
}

/** Every option with its value in force and what is pending, sorted by name. */
export function pendingItems(config: GuestConfig): PendingItem[] {
  const { options } = config
  const inForce = optionsInForce(config)
  return [...new Set([...Object.keys(options), ...Object.keys(inForce)])].toSorted().map((key) => {
    const [value, wanted] = [inForce[key], options[key]]
    return {
      key,
      ...(value === undefined ? {} : { value }),
      ...(wanted === undefined || wanted === value ? {} : { pending: wanted }),
      isDeleted: wanted === undefined,
    }
  })
}

/** What holds now: the running guest's hardware with today's name, tags and so on. */
export function optionsInForce({ options, running }: Pick<GuestConfig, 'options' | 'running'>): Options {
  if (!running) return options
  const hardware = Object.entries(running).filter(([name]) => !isInForceAtOnce(name))
  const rest = Object.entries(options).filter(([name]) => isInForceAtOnce(name))
  return Object.fromEntries([...hardware, ...rest])
}

/** The wanted options once `revert` undid what is pending. */
export function revertOptions(config: GuestConfig, names: readonly string[]): Options {
  const inForce = optionsInForce(config)
  const result: Record<string, string> = { ...config.options }
  for (const name of names) {
    const value = inForce[name]
    if (value === undefined) delete result[name]
    else result[name] = value
  }
  return result
}

/** Takes a change from `before` to `written` back out of `now`, sparing what somebody else changed since. */
export function takeBack(now: Options, before: Options, written: Options): Options {
  const result: Record<string, string> = { ...now }
  for (const name of new Set([...Object.keys(before), ...Object.keys(written)])) {
    if (before[name] === written[name] || now[name] !== written[name]) continue
    const old = before[name]
    if (old === undefined) delete result[name]
    else result[name] = old
  }
  return result
}

export function nameOf(options: Options, vmid: number): string {
  return options.name ?? `VM ${vmid}`
}

export function hostnameOf(options: Options, vmid: number): string {
  return options.hostname ?? `CT${vmid}`
}

export function isProtected(options: Options): boolean {
  return isOn(options.protection, false)
}

export function isTemplate(options: Options): boolean {
  return isOn(options.template, false)
}

/** `a;b`, however they were separated when given. */
export function normalTags(text: string): string {
  const tags = text.split(/[,;\s\0]+/).filter(Boolean)
  return [...new Set(tags.map((tag) => tag.toLowerCase()))].toSorted().join(';')
}
