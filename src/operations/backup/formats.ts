/** Property strings among the parameters of backups, for a backup as for a job. */
import { boolean, integer, optional, type PropertyFormat, string } from '#base/schema/schema.ts'

export const fleecingFormat: PropertyFormat = {
  enabled: { schema: optional(boolean({ default: false })), isDefaultKey: true },
  storage: { schema: optional(string({ format: 'pve-storage-id', maxLength: 100 })) },
}
export const performanceFormat: PropertyFormat = {
  'max-workers': { schema: optional(integer({ minimum: 1, maximum: 256, default: 16 })) },
  'pbs-entries-max': { schema: optional(integer({ minimum: 1, maximum: 2 ** 40, default: 1_048_576 })) },
}
