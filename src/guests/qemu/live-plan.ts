/**
 * What a running guest can become of what is wanted, without a restart. Pure: the difference of two configurations
 * becomes a list of acts; what no act covers stays pending.
 *
 * A disk that only changes how it is cached stays pending: to take it out and put it back would break the guest.
 */
import type { Options } from '../config.ts'
import { isOn } from '../config.ts'
import { topologyOf } from './cpu.ts'
import { isLimitKey } from './drive-limits.ts'
import { driveNameParts, driveOf, isOnBus } from './drive.ts'
import { type HotplugKind, hotplugsOf } from './hotplug-kinds.ts'
import { memoryMiBOf } from './memory.ts'
import { nicOf } from './nic.ts'
import { hasMemoryModules } from './numa.ts'

export type LiveKind =
  | 'plug-drive'
  | 'unplug-drive'
  | 'change-disc'
  | 'limit-drive'
  | 'plug-card'
  | 'unplug-card'
  | 'move-card'
  | 'set-cable'
  | 'plug-processors'
  | 'unplug-processors'
  | 'plug-memory'
  | 'set-balloon'
  | 'set-shares'
  | 'set-affinity'
  | 'unplug-tablet'
  | 'nothing'

export interface LiveAct {
  readonly kind: LiveKind
  /** The option it is about. */
  readonly name: string
  /** The option as it is once the act has succeeded; absent: gone. */
  readonly value: string | undefined
}

/** Keys of a drive that mean something to this program alone. */
const ownKeys = new Set(['backup', 'replicate', 'shared', 'size', 'format'])

/**
 * The acts in their order: what leaves goes first.
 * @param present drives and cards QEMU has, where that is known: what it has and the record does not is left over
 *   from an act that was interrupted, and leaves too
 */
export function planLive(running: Options, wanted: Options, present: readonly string[] = []): LiveAct[] {
  const strays = present
    .filter((name) => running[name] === undefined)
    .map((name): LiveAct => ({
      kind: kindOf(name) === 'network' ? 'unplug-card' : 'unplug-drive',
      name,
      value: undefined,
    }))
  const names = new Set([...Object.keys(running), ...Object.keys(wanted)])
  const acts = [...names].toSorted().flatMap((name) => {
    const [before, after] = [running[name], wanted[name]]
    return before === after ? [] : actsFor(name, before, after, running, wanted)
  })
  const leaving = (act: LiveAct) => act.kind === 'unplug-drive' || act.kind === 'unplug-card'
  return [...strays, ...acts.filter(leaving), ...acts.filter((act) => !leaving(act))]
}

function kindOf(name: string): HotplugKind | undefined {
  if (/^net\d+$/.test(name)) return 'network'
  return driveNameParts(name) ? 'disk' : undefined
}

function actsFor(
  name: string,
  before: string | undefined,
  after: string | undefined,
  running: Options,
  wanted: Options,
): LiveAct[] {
  switch (kindOf(name)) {
    case 'disk':
      return driveActs(name, before, after, running, wanted)
    case 'network':
      return cardActs(name, before, after, wanted)
    default:
      return otherActs(name, after, running, wanted)
  }
}

function driveActs(
  name: string,
  before: string | undefined,
  after: string | undefined,
  running: Options,
  wanted: Options,
): LiveAct[] {
  if (before !== undefined && after !== undefined) {
    const kind = changeOfDrive(name, before, after)
    if (kind === 'stays') return []
    if (kind !== 'other') return [{ kind, name, value: after }]
  }
  const isAllowed = hotplugsOf(wanted).has('disk') && isPluggable(name, running)
  // A controller that is to change does so at the next start, and what is to be on it with it.
  if (!isAllowed || (after !== undefined && running.scsihw !== wanted.scsihw && name.startsWith('scsi'))) return []
  return [
    ...(before === undefined ? [] : [{ kind: 'unplug-drive' as const, name, value: undefined }]),
    ...(after === undefined ? [] : [{ kind: 'plug-drive' as const, name, value: after }]),
  ]
}

/** Only these buses let a drive come and go. */
function isPluggable(name: string, running: Options): boolean {
  const bus = driveNameParts(name)?.bus
  return bus === 'virtio' || (bus === 'scsi' && (running.scsihw ?? '').startsWith('virtio-scsi'))
}

function changeOfDrive(name: string, before: string, after: string): LiveKind | 'stays' | 'other' {
  const [old, next] = [driveOf(name, before), driveOf(name, after)]
  const keys = new Set([...Object.keys(old.values), ...Object.keys(next.values)])
  const changed = [...keys].filter((key) => old.values[key] !== next.values[key] && !ownKeys.has(key))
  if (changed.every(isLimitKey)) return changed.length === 0 || !isOnBus(next) ? 'nothing' : 'limit-drive'
  if (old.isCdrom && next.isCdrom) return changed.every((key) => key === 'file') ? 'change-disc' : 'stays'
  return changed.includes('file') ? 'other' : 'stays'
}

function cardActs(name: string, before: string | undefined, after: string | undefined, wanted: Options): LiveAct[] {
  const unplug: LiveAct = { kind: 'unplug-card', name, value: undefined }
  const canPlug = hotplugsOf(wanted).has('network')
  if (after === undefined) return canPlug ? [unplug] : []
  if (before === undefined) return canPlug ? [{ kind: 'plug-card', name, value: after }] : []
  const [old, next] = [nicOf(name, before), nicOf(name, after)]
  const isSame = JSON.stringify(withoutCable(old)) === JSON.stringify(withoutCable(next))
  if (isSame && old.isLinkDown !== next.isLinkDown) return [{ kind: 'set-cable', name, value: after }]
  if (isSame) return [{ kind: 'nothing', name, value: after }]
  const isSameDevice = old.model === next.model && old.mac === next.mac && old.mtu === next.mtu
  const staysOnBridges = old.bridge !== undefined && next.bridge !== undefined
  if (isSameDevice && staysOnBridges) return [{ kind: 'move-card', name, value: after }]
  return canPlug ? [unplug, { kind: 'plug-card', name, value: after }] : []
}

function withoutCable(nic: object): object {
  return { ...nic, isLinkDown: false }
}

function otherActs(name: string, after: string | undefined, running: Options, wanted: Options): LiveAct[] {
  const act = (kind: LiveKind): LiveAct[] => [{ kind, name, value: after }]
  const kinds = hotplugsOf(wanted)
  switch (name) {
    case 'cpulimit':
    case 'cpuunits':
      return act('set-shares')
    case 'affinity':
      return act('set-affinity')
    case 'shares':
      return act('nothing')
    case 'balloon':
      // The device itself neither comes nor goes.
      return after !== '0' && running.balloon !== '0' ? act('set-balloon') : []
    case 'memory':
      return kinds.has('memory') && hasMemoryModules(running) && memoryMiBOf(wanted) > memoryMiBOf(running)
        ? act('plug-memory')
        : []
    case 'vcpus': {
      const [old, next] = [topologyOf(running), topologyOf({ ...running, vcpus: after ?? '' })]
      if (!kinds.has('cpu') || after === undefined || old.maximum !== topologyOf(wanted).maximum) return []
      return act(next.plugged > old.plugged ? 'plug-processors' : 'unplug-processors')
    }
    case 'tablet':
      return kinds.has('usb') && after !== undefined && !isOn(after, true) ? act('unplug-tablet') : []
    default:
      return []
  }
}
