/**
 * What is said of a backup, said of its copy as well. What a check found is true of the datastore it was made in alone: a copy
 * nobody has read there is not verified. Damage goes with a new copy all the same, as what is lost there did not come; a check
 * of the copy says what is true of that.
 */
import { isFault } from '#base/fault.ts'
import type { Datastore } from '../datastore.ts'
import { printPoint, type RestorePoint } from '../point.ts'
import type { Marks } from '../points/marks.ts'

/** For a backup that is not there yet. Where they cannot be read, they may have said that nobody removes it. */
export async function marksOfNew(from: Datastore, point: RestorePoint): Promise<Marks> {
  try {
    const { notes, hint, damage, ...marks } = await from.marks(point)
    return { notes, hint, damage, protected: marks.protected }
  } catch (fault) {
    if (!isFault(fault, 'damaged')) throw fault
    return { protected: true }
  }
}

/**
 * For one that was there before. Nobody knows who said last what differs, so nothing that was said there is taken back: it is
 * protected from now on where the source's is, and notes come where there are none.
 */
export async function bringMarks(from: Datastore, to: Datastore, point: RestorePoint): Promise<void> {
  const { protected: isProtected = false, notes } = await marksOfNew(from, point)
  if (!isProtected && notes === undefined) return
  try {
    const there = await to.marks(point)
    const change: Marks = {
      ...(isProtected && there.protected !== true && { protected: true }),
      ...(there.notes === undefined && notes !== undefined && { notes }),
    }
    if (Object.keys(change).length > 0) await to.mark(point, change)
  } catch (cause) {
    // Damaged ones count as protected; they are mended by who looks after the copy.
    if (!isFault(cause, 'damaged') && !isFault(cause, 'missing') && !isFault(cause, 'denied')) throw cause
    to.deps.log.warn('the marks of a copied backup were not brought up to date', { backup: printPoint(point), cause })
  }
}
