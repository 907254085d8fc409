/** A guest's configuration as the API shows it. */
import { missing } from '#base/fault.ts'
import { cloudInitItems, maskedPassword } from '#guests/cloud-init/options.ts'
import type { GuestConfig, PendingItem } from '#guests/config.ts'
import { optionsInForce, pendingItems } from '#guests/config.ts'
import * as container from '#guests/lxc/options.ts'
import { optionParams, optionsToReply, serverOptions } from '#guests/qemu/options.ts'
import { array, integer, object, optional, string } from '#base/schema/schema.ts'
import type { Schema, Static } from '#base/schema/schema.ts'

/** Every option by its own schema. Its type says less than it could: which options there are is data. */
export const configReply: Schema<Record<string, unknown>> = {
  type: 'object',
  properties: {
    ...optionParams,
    ...serverOptions,
    digest: string({ description: 'SHA-1 of the configuration; give it back to change exactly this one.' }),
  },
}

/** Of a container. */
export const containerConfigReply: Schema<Record<string, unknown>> = {
  type: 'object',
  properties: {
    ...container.optionParams,
    ...container.serverOptions,
    digest: string({ description: 'SHA-1 of the configuration; give it back to change exactly this one.' }),
  },
}

export const pendingReply = array(
  object({
    key: string({ description: 'Name of the option.' }),
    value: optional(string({ description: 'Value in force.' })),
    pending: optional(string({ description: 'Value from the next start on.' })),
    delete: optional(integer({ description: '1 when the option goes at the next start.', minimum: 0, maximum: 2 })),
  }),
)

/** @param current what is in force now, instead of what the next start uses */
export function configOf(
  config: GuestConfig,
  { current = false, snapshot }: { current?: boolean | undefined; snapshot?: string | undefined },
) {
  if (snapshot !== undefined) throw missing('snapshot', snapshot)
  return { ...optionsToReply(current ? optionsInForce(config) : config.options), digest: config.digest }
}

/** @param current what is in force now, instead of what the next start uses */
export function containerConfigOf(config: GuestConfig, { current = false }: { current?: boolean | undefined }) {
  const options = container.optionsToReply(current ? optionsInForce(config) : config.options)
  // Some clients look here, without asking whether it says anything, before they clone.
  return { template: false, ...options, digest: config.digest }
}

export function pendingOf(config: GuestConfig): Static<typeof pendingReply> {
  return pendingItems(config).map(shown)
}

/** What the guest was told by cloud-init, and what it would be told. */
export function cloudInitPendingOf(config: GuestConfig): Static<typeof pendingReply> {
  return cloudInitItems(config).map(shown)
}

function shown({ isDeleted, key, value, pending }: PendingItem): Static<typeof pendingReply>[number] {
  const isSecret = key === 'cipassword'
  return {
    key,
    ...(value === undefined ? {} : { value: isSecret ? maskedPassword : value }),
    ...(pending === undefined ? {} : { pending: isSecret ? maskedPassword : pending }),
    ...(isDeleted ? { delete: 1 } : {}),
  }
}
