/** Somebody shows that they have the node's recovery key: from then on it, and none before it, opens its datastores. */
import { isFault, messageOf } from '#base/fault.ts'
import type { Services } from '#services.ts'

export interface ConfirmedKey {
  readonly fingerprint: string
  /** Datastores it opens now. */
  readonly storages: string[]
  /** Those that follow as soon as they are opened again, and why they did not yet. */
  readonly later: { readonly storage: string; readonly reason: string }[]
}

/** @throws Fault `invalid` for another key, `missing` when none was made */
export async function confirmRecoveryKey(
  { nodeKeys, backup, storage }: Pick<Services, 'nodeKeys' | 'backup' | 'storage'>,
  key: string,
): Promise<ConfirmedKey> {
  await nodeKeys.confirm(key)
  const { fingerprint = '' } = await nodeKeys.status()
  const storages: string[] = []
  const later: { storage: string; reason: string }[] = []
  for (const { name, content } of await storage.list()) {
    if (!content.includes('backup')) continue
    try {
      if (await backup.keepWays(name)) storages.push(name)
    } catch (fault) {
      if (!isFault(fault)) throw fault
      later.push({ storage: name, reason: messageOf(fault) })
    }
  }
  return { fingerprint, storages, later }
}
