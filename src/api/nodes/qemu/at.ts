/** Parameters many calls on one guest share. */
import { boolean, enumOf, optional } from '#base/schema/schema.ts'
import { nodeName, vmid } from '#base/schema/standard.ts'
import { buses } from '#guests/qemu/drive-format.ts'

export const guestAt = { node: nodeName, vmid }
const drivesOn = (bus: keyof typeof buses) => Array.from({ length: buses[bus] }, (_, index) => `${bus}${index}`)
/** Every place a disk can have, in the contract's order. */
export const diskNames = [
  ...drivesOn('ide'),
  ...drivesOn('scsi'),
  ...drivesOn('virtio'),
  ...drivesOn('sata'),
  'efidisk0',
  'tpmstate0',
]
export const diskName = enumOf(diskNames, { description: 'Disk.' })
export const skiplock = optional(boolean({ description: 'Ignore locks of the guest; root only.' }))
