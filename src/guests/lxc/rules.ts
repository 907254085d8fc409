/** What the configuration of a container means. */
import type { Vmid } from '#base/ids.ts'
import { processorCount } from '#host/system/topology.ts'
import { hostnameOf, type Options } from '../config.ts'
import type { ConfigRules, OwnFacts } from '../rules.ts'
import { completed, planChange } from './change.ts'
import { coresOf, memoryBytesOf, swapBytesOf } from './limits.ts'
import { liveNames } from './live.ts'
import { mountsOf, rememberedSize } from './mountpoint.ts'

export const containerRules: ConfigRules = {
  plan: planChange,
  isLive: (running, wanted) => liveNames(running, wanted).length > 0,
  completed,
  facts: factsOf,
}

function factsOf(vmid: Vmid, options: Options): OwnFacts {
  const root = mountsOf(options).find(({ name }) => name === 'rootfs')
  return {
    name: hostnameOf(options, vmid),
    processors: coresOf(options) ?? processorCount(),
    maxMemoryBytes: memoryBytesOf(options),
    maxSwapBytes: swapBytesOf(options),
    maxDiskBytes: root ? rememberedSize(root) : 0,
  }
}
