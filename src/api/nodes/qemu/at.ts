/** Parameters many calls on one guest share. */
import { boolean, optional } from '#base/schema/schema.ts'
import { nodeName, vmid } from '#base/schema/standard.ts'

export const guestAt = { node: nodeName, vmid }
export const skiplock = optional(boolean({ description: 'Ignore locks of the guest; root only.' }))
