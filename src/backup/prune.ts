/**
 * Which backups of a storage outlast pruning, guest by guest.
 *
 * A protected backup stays and does not count. One that is known to be damaged does not count either, so that what is
 * kept can be restored; and it stays, because somebody ought to look at it before it goes.
 */
import { kept, type Retention } from '#base/retention.ts'
import type { ListedBackup } from './service.ts'

export interface MarkedBackup extends ListedBackup {
  readonly mark: 'keep' | 'remove' | 'protected'
}

/** In the order given. @param zone whose days and weeks count */
export function markBackups(backups: readonly ListedBackup[], retention: Retention, zone: string): MarkedBackup[] {
  const counted = backups.filter((one) => one.protected !== true && one.damage === undefined)
  const staying = new Set<ListedBackup>()
  for (const group of Map.groupBy(counted, ({ type, vmid }) => `${type}/${vmid}`).values()) {
    for (const one of kept(group, retention, zone)) staying.add(one)
  }
  const going = new Set(counted.filter((one) => !staying.has(one)))
  return backups.map((one) => {
    if (one.protected === true) return { ...one, mark: 'protected' }
    return { ...one, mark: going.has(one) ? 'remove' : 'keep' }
  })
}
