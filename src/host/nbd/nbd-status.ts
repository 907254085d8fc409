/** What an NBD server says of the parts of a disk: runs of flags, for each context it was asked for. */
import { allocationZero } from './nbd-wire.ts'

export interface NbdExtent {
  readonly offset: number
  readonly length: number
  readonly isZero: boolean
  /** As it was when the bitmap began; absent where none was asked for. */
  readonly isUnchanged?: boolean
}

export interface StatusRun {
  readonly length: number
  readonly flags: number
}

/** In `qemu:dirty-bitmap:…`. */
const bitmapDirty = 1

export const bitmapContext = (bitmap: string): string => `qemu:dirty-bitmap:${bitmap}`

/**
 * @param payload number of the context and runs
 * @param length what was asked for: the last run may reach beyond it
 * @returns nothing when it is of odd form
 */
export function parseStatus(
  payload: Buffer,
  length: number,
): { readonly context: number; readonly runs: StatusRun[] } | undefined {
  if (payload.length < 12 || (payload.length - 4) % 8 !== 0) return undefined
  const runs: StatusRun[] = []
  for (let [at, left] = [4, length]; at < payload.length && left > 0; at += 8) {
    const size = Math.min(payload.readUInt32BE(at), left)
    if (size === 0) return undefined
    runs.push({ length: size, flags: payload.readUInt32BE(at + 4) })
    left -= size
  }
  return { context: payload.readUInt32BE(0), runs }
}

/** As far as all contexts tell. Without `allocation` all of it counts as data. */
export function extentsOf(
  offset: number,
  { allocation, bitmap }: { readonly allocation?: StatusRun[] | undefined; readonly bitmap?: StatusRun[] | undefined },
): NbdExtent[] {
  const flagsOf = ({ flags }: StatusRun, isBitmap: boolean) =>
    isBitmap ? { isUnchanged: (flags & bitmapDirty) === 0 } : { isZero: (flags & allocationZero) !== 0 }
  const [first, second] = allocation ? [allocation, bitmap] : [bitmap ?? [], undefined]
  const extents: NbdExtent[] = []
  for (let [at, a, b, skipA, skipB] = [offset, 0, 0, 0, 0]; ;) {
    const [one, other] = [first[a], second?.[b]]
    if (!one || (second && !other)) return extents
    const length = Math.min(one.length - skipA, other ? other.length - skipB : Infinity)
    extents.push({
      offset: at,
      length,
      isZero: false,
      ...flagsOf(one, !allocation),
      ...(other && flagsOf(other, true)),
    })
    at += length
    skipA += length
    skipB += length
    if (skipA === one.length) [a, skipA] = [a + 1, 0]
    if (skipB === other?.length) [b, skipB] = [b + 1, 0]
  }
}
