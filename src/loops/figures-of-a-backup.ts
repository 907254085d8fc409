/** What metric servers are told of how one backup was made: from its manifest alone, so it is told of no more than was written down. */
import { defaultChunkBytes } from '#datastore/format.ts'
import { type Manifest, newStoredBytesOf } from '#datastore/points/manifest.ts'
import type { Json } from '#store/store.ts'

export interface MadeHow {
  readonly stored: number
  /** Seconds, as all that took time. */
  readonly duration: number
  /** Of a guest that ran and went on: whether its file systems were frozen (1), for how long, and how long it was held. */
  readonly frozen?: number
  readonly freezeduration?: number
  readonly heldduration?: number
  /** Disks that were read whole, and those read by the record of what changed. */
  readonly diskswhole?: number
  readonly diskschanged?: number
  /** Bytes: what was read of disks; and of those read by record, what it said had changed. */
  readonly read?: number
  readonly changed?: number
  /** Chunks called unchanged that were looked at, and those that were not. */
  readonly audited?: number
  readonly audithits?: number
}

type Made = Pick<Manifest, 'point' | 'finished' | 'facts' | 'disks' | 'trees' | 'files'>

export function madeHow(manifest: Made): MadeHow {
  const duration = Math.max(0, manifest.finished - manifest.point.time)
  return { stored: newStoredBytesOf(manifest), duration, ...ofFreeze(manifest.facts), ...ofDisks(manifest.disks) }
}

/** Whether its record of changes was caught lying. */
export function hasWrongRecord({ disks }: Pick<Manifest, 'disks'>): boolean {
  return disks.some(({ reading }) => (reading?.hits ?? 0) > 0)
}

/** Nothing of a guest that stood still anyway. */
function ofFreeze({ wasRunning, mode, freeze, heldMs }: Readonly<Record<string, unknown>>): Partial<MadeHow> {
  if (wasRunning !== true || mode === 'stop') return {}
  const { state, durationMs } = Object(freeze) as Readonly<Record<string, Json>>
  return {
    frozen: Number(state === 'frozen'),
    ...(typeof durationMs === 'number' && { freezeduration: durationMs / 1000 }),
    ...(typeof heldMs === 'number' && { heldduration: heldMs / 1000 }),
  }
}

function ofDisks(disks: Manifest['disks']): Partial<MadeHow> {
  // Before readings were written down, and a TPM's state.
  const known = disks.filter(({ reading }) => reading !== undefined)
  if (known.length === 0) return {}
  const byRecord = known.filter(({ reading }) => reading?.how === 'changes')
  const changed = sum(byRecord.map(({ reading }) => reading?.changedBytes ?? 0))
  const audited = sum(byRecord.map(({ reading }) => reading?.auditedChunks ?? 0))
  const whole = known.filter(({ reading }) => reading?.how === 'scan')
  return {
    diskswhole: whole.length,
    diskschanged: byRecord.length,
    read: changed + audited * defaultChunkBytes + sum(whole.map(({ dataBytes }) => dataBytes)),
    ...(byRecord.length > 0 && { changed, audited }),
    audithits: sum(known.map(({ reading }) => reading?.hits ?? 0)),
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, one) => all + one, 0)
}
