/** What the configuration of a virtual machine means. */
import { MiB } from '#base/bytes.ts'
import type { Vmid } from '#base/ids.ts'
import { nameOf, type Options } from '../config.ts'
import type { ConfigRules, OwnFacts } from '../rules.ts'
import { bootOrderOf } from './boot.ts'
import { planChange } from './change.ts'
import { topologyOf } from './cpu.ts'
import { drivesOf, rememberedSize } from './drive.ts'
import { planLive } from './live-plan.ts'
import { memoryMiBOf } from './memory.ts'
import { completedChange } from './new-guest.ts'

export const machineRules: ConfigRules = {
  plan: planChange,
  isLive: (running, wanted) => planLive(running, wanted).length > 0,
  completed: completedChange,
  facts: factsOf,
}

function factsOf(vmid: Vmid, options: Options): OwnFacts {
  const isFirst = bootOrderOf(options)
  const disks = drivesOf(options).filter(({ isCdrom }) => !isCdrom)
  const disk = disks.find(({ name }) => isFirst.includes(name)) ?? disks[0]
  return {
    name: nameOf(options, vmid),
    processors: topologyOf(options).plugged,
    maxMemoryBytes: memoryMiBOf(options) * MiB,
    maxSwapBytes: 0,
    maxDiskBytes: (disk && rememberedSize(disk)) ?? 0,
  }
}
