/** What a configuration means, by the kind of guest: the pure half of what differs between them. */
import { MiB } from '#base/bytes.ts'
import type { Vmid } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import type { ChangePlan, ConfigChange, GuestConfig, Options } from './config.ts'
import { hostnameOf, isTemplate, nameOf } from './config.ts'
import { type GuestDocument, lockOf } from './documents.ts'
import type { GuestStatus } from './guest.ts'
import type { GuestKind } from './kind.ts'
import * as container from './lxc/change.ts'
import { coresOf, memoryBytesOf, swapBytesOf } from './lxc/limits.ts'
import { liveNames } from './lxc/live.ts'
import { mountsOf, rememberedSize as sizeOfMount } from './lxc/mountpoint.ts'
import { bootOrderOf } from './qemu/boot.ts'
import { planChange } from './qemu/change.ts'
import { topologyOf } from './qemu/cpu.ts'
import { drivesOf, rememberedSize } from './qemu/drive.ts'
import { planLive } from './qemu/live-plan.ts'
import { memoryMiBOf } from './qemu/memory.ts'
import { completedChange } from './qemu/new-guest.ts'
import { processorCount } from '#host/topology.ts'

export interface ConfigRules {
  /** @throws Fault `invalid` naming each wrong option; `conflict` where the guest's state forbids the change */
  readonly plan: (vmid: Vmid, config: GuestConfig, change: ConfigChange, force?: boolean) => ChangePlan
  /** Whether the running guest takes part in the change. */
  readonly isLive: (running: Options, wanted: Options) => boolean
  /** Adds what a changed option still lacks. */
  readonly completed: (options: Options, random: Random) => Options
  /** What follows from the configuration alone. */
  readonly facts: (vmid: Vmid, document: GuestDocument) => Omit<GuestStatus, 'state'>
}

const machineRules: ConfigRules = {
  plan: planChange,
  isLive: (running, wanted) => planLive(running, wanted).length > 0,
  completed: completedChange,
  facts: machineFacts,
}

const containerRules: ConfigRules = {
  plan: container.planChange,
  isLive: (running, wanted) => liveNames(running, wanted).length > 0,
  completed: container.completed,
  facts: containerFacts,
}

export function rulesOf(kind: GuestKind): ConfigRules {
  return kind === 'lxc' ? containerRules : machineRules
}

function sharedFacts(document: GuestDocument) {
  const { kind, options } = document
  return { kind, options, lock: lockOf(document), isTemplate: isTemplate(options), tags: options.tags }
}

function containerFacts(vmid: Vmid, document: GuestDocument): Omit<GuestStatus, 'state'> {
  const { options } = document
  const root = mountsOf(options).find(({ name }) => name === 'rootfs')
  return {
    vmid,
    ...sharedFacts(document),
    name: hostnameOf(options, vmid),
    processors: coresOf(options) ?? processorCount(),
    maxMemoryBytes: memoryBytesOf(options),
    maxSwapBytes: swapBytesOf(options),
    maxDiskBytes: root ? sizeOfMount(root) : 0,
  }
}

function machineFacts(vmid: Vmid, document: GuestDocument): Omit<GuestStatus, 'state'> {
  const { options } = document
  const isFirst = bootOrderOf(options)
  const disks = drivesOf(options).filter(({ isCdrom }) => !isCdrom)
  const disk = disks.find(({ name }) => isFirst.includes(name)) ?? disks[0]
  return {
    vmid,
    ...sharedFacts(document),
    name: nameOf(options, vmid),
    processors: topologyOf(options).plugged,
    maxMemoryBytes: memoryMiBOf(options) * MiB,
    maxSwapBytes: 0,
    maxDiskBytes: (disk && rememberedSize(disk)) ?? 0,
  }
}
