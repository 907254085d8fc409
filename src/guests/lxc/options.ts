/** Every option a container's configuration may have: one table, as of virtual machines. */
import type { Errors } from '#base/schema/check.ts'
import { checkProperties } from '#base/schema/check.ts'
import { boolean, optional, string } from '#base/schema/schema.ts'
import type { Properties } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { textsFrom, valuesOf } from '../option-text.ts'
import { featureErrors, needsRoot } from './features.ts'
import { isMountName, mountErrors } from './mountpoint.ts'
import { nicErrors } from './nic.ts'
import { cpuOptions, diskOptions, generalOptions, memoryOptions, networkOptions, rootOptions } from './option-groups.ts'

/** Parameters of configuration changes. */
export const optionParams = {
  ...cpuOptions,
  ...memoryOptions,
  ...networkOptions,
  ...diskOptions,
  ...generalOptions,
  ...rootOptions,
} as const

/** Given when a container is made, and only read afterwards. */
export const createParams = {
  unprivileged: optional(
    boolean({
      description: 'Its root is nobody outside. Without it, root alone may make the container.',
      default: true,
    }),
  ),
  template: optional(boolean({ description: 'The guest is a template.', default: false })),
} as const

/** Options the server writes and clients read. */
export const serverOptions = {
  ...createParams,
  parent: optional(string({ description: 'Snapshot the guest goes on from.', format: 'pve-configid', maxLength: 40 })),
} as const

const knownOptions: Properties = { ...optionParams, ...serverOptions }

const groups: readonly (readonly [string, Properties])[] = [
  ['VM.Config.CPU', cpuOptions],
  ['VM.Config.Memory', memoryOptions],
  ['VM.Config.Network', networkOptions],
  ['VM.Config.Disk', diskOptions],
  ['VM.Config.Options', generalOptions],
]

/** The privilege on `/vms/{vmid}` that setting the option takes; undefined for root's own. */
export function privilegeFor(name: string): string | undefined {
  return groups.find(([, options]) => Object.hasOwn(options, name))?.[0]
}

/** True for options that only root may set to this value. */
export function isRootOnly(name: string, value: string | undefined): boolean {
  if (Object.hasOwn(rootOptions, name)) return true
  if (value === undefined) return false
  if (name === 'features') return needsRoot(value)
  // A privileged container is as good as the node itself.
  if (name === 'unprivileged') return value !== '1'
  // With the ids of the disk, what root inside makes may be of the node's root there.
  if (isMountName(name) && /(?:^|,)idmap=/.test(value)) return true
  return /^mp\d+$/.test(name) && /^(?:volume=)?\//.test(value)
}

export function isOption(name: string): boolean {
  return Object.hasOwn(knownOptions, name)
}

export function isServerOption(name: string): boolean {
  return Object.hasOwn(serverOptions, name)
}

/** Checked parameters as configuration text; what is no option is left out. */
export function optionsFrom(params: Readonly<Record<string, unknown>>): Options {
  return textsFrom(params, optionParams)
}

/** A stored configuration as a reply: numbers and booleans by their schema, the rest text. */
export function optionsToReply(options: Options): Record<string, string | number | boolean> {
  return valuesOf(options, knownOptions)
}

/** Every rule the options break, by name: each option by itself, then what must hold between them. */
export function optionErrors(options: Options): Errors {
  const checked = checkProperties(knownOptions, options)
  if (!checked.ok) return checked.errors
  return { ...featureErrors(options), ...mountErrors(options), ...nicErrors(options) }
}
