/** Whether the index says where everything lies that backups need; and where it does not, what the packs say. */
import { isFault } from '#base/fault.ts'
import { LiveChunks } from '../tidy/live-chunks.ts'
import type { OpenDatastore } from '../datastore.ts'
import { goOn } from '../go-on.ts'
import { mendIndex } from '../tidy/repair.ts'
import { unnamedPacks } from '../index/tables.ts'
import { verifyIndex } from './verify.ts'

export interface CheckedIndex {
  /** What is wrong with it still. */
  readonly damage: readonly string[]
  /** What was wrong with it. */
  readonly mended: readonly string[]
}

/** @param onDamage told of what is wrong before it is mended */
export async function checkedIndex(
  open: OpenDatastore,
  signal?: AbortSignal,
  onDamage: (damage: readonly string[]) => Promise<void> = async () => {},
): Promise<CheckedIndex> {
  const damage = await verifyIndex(open)
  if (damage.length === 0 && !(await isAllNamed(open, signal))) {
    damage.push('a part of the index is lost: packs no other part names hold what backups need')
  }
  if (damage.length > 0) await onDamage(damage)
  if (damage.length === 0 || !(await mendIndex(open, signal))) return { damage, mended: [] }
  return { damage: await verifyIndex(open), mended: damage }
}

async function isAllNamed(open: OpenDatastore, signal: AbortSignal | undefined): Promise<boolean> {
  const { segments } = open.index
  if (!open.keyring.canRead || (await unnamedPacks(open.datastore.place, segments)).length === 0) return true
  const live = await LiveChunks.of(segments)
  for (const point of await open.datastore.points()) {
    goOn(signal)
    try {
      await live.mark(open, await open.body(point))
    } catch (fault) {
      // What is wrong with the manifest is said elsewhere; and if it was something else, nothing is lost by looking.
      if (isFault(fault, 'damaged')) return false
      if (!isFault(fault, 'missing') && !isFault(fault, 'denied')) throw fault
    }
  }
  return !open.index.isIncomplete
}
