/** Schemas many endpoints share. */
import { integer, string } from './schema.ts'

export const nodeName = string({ description: 'Name of the node.', format: 'pve-node', maxLength: 63 })
export const vmid = integer({ description: 'Number of the guest.', minimum: 100, maximum: 999_999_999 })
export const storageId = string({ description: 'Name of the storage.', format: 'pve-storage-id', maxLength: 100 })
export const volumeId = string({ description: 'Volume, as `storage:name`.', maxLength: 1024 })
export const upid = string({ description: 'Identifier of a task.', format: 'pve-upid', maxLength: 512 })
export const userId = string({ description: 'User, as `name@realm`.', format: 'pve-userid', maxLength: 64 })
export const configDigest = string({
  description: 'Refuse the change when the configuration no longer has this SHA-1.',
  maxLength: 64,
})
