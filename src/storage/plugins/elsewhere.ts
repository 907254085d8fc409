/** What storages have in common whose datastore lies elsewhere: they hold backups, and nothing else. */
import type { RemoteDatastore } from '#base/datastore-at.ts'
import { optional, string } from '#base/schema/schema.ts'
import type { Secrets, StorageDriver, StorageFeatures } from '../plugin.ts'

export const elsewhereFeatures: StorageFeatures = {
  formats: [],
  sparse: false,
  shared: true,
  snapshots: [],
  openSnapshots: [],
  linkedClones: false,
  trees: { snapshots: false, links: false, limits: false },
}

export const namespaceOption = optional(
  string({
    description: 'Part of the datastore this node keeps its backups in, such as site-a; the root when absent.',
    pattern: /[a-z0-9][a-z0-9_-]{0,31}(?:\.[a-z0-9][a-z0-9_-]{0,31}){0,7}/,
    maxLength: 263,
  }),
)

/** @param identity the same for every storage in that place; no secret */
export function driverElsewhere(identity: string, remote: (secrets: Secrets) => RemoteDatastore): StorageDriver {
  // Whether somebody answers there is found out by whoever knows how to ask.
  const nothing = async () => {}
  return {
    prepare: nothing,
    requireActive: nothing,
    space: async () => ({ totalBytes: 0, usedBytes: 0, availableBytes: 0 }),
    identity: async () => identity,
    sweep: async () => [],
    remote,
  }
}
