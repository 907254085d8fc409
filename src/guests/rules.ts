/** What a configuration means, by the kind of guest: the pure half of what differs between them. */
import type { Vmid } from '#base/ids.ts'
import { loaderFor, once } from '#base/on-demand.ts'
import type { Random } from '#base/random.ts'
import type { ChangePlan, ConfigChange, GuestConfig, Options } from './config.ts'
import type { GuestStatus } from './guest.ts'
import type { GuestKind } from './kind.ts'
import type * as containers from './lxc/rules.ts'
import type * as machines from './qemu/rules.ts'

export type OwnFacts = Pick<GuestStatus, 'name' | 'processors' | 'maxMemoryBytes' | 'maxSwapBytes' | 'maxDiskBytes'>

export interface ConfigRules {
  /** @throws Fault `invalid` naming each wrong option; `conflict` where the guest's state forbids the change */
  readonly plan: (vmid: Vmid, config: GuestConfig, change: ConfigChange, force?: boolean) => ChangePlan
  /** Whether the running guest takes part in the change. */
  readonly isLive: (running: Options, wanted: Options) => boolean
  /** Adds what a changed option still lacks. */
  readonly completed: (options: Options, random: Random) => Options
  /** What of its status follows from the configuration alone, and is another matter for each kind. */
  readonly facts: (vmid: Vmid, options: Options) => OwnFacts
}

const load = loaderFor(import.meta.url)
const containerRules = once(() => load<typeof containers>('./lxc/rules.ts').containerRules)
const machineRules = once(() => load<typeof machines>('./qemu/rules.ts').machineRules)

export function rulesOf(kind: GuestKind): ConfigRules {
  return kind === 'lxc' ? containerRules() : machineRules()
}
