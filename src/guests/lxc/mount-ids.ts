/** How ids of a volume are seen inside: `passthrough`, or `u:1000:1000:1;g:100:100:1` (kind, inside, on the disk, how many). */
import type { IdMap } from '#host/lxc/id-map.ts'
import { isUnprivileged } from './features.ts'
import { rootOf, unprivilegedMap } from './idmap.ts'
import type { Options } from '../config.ts'

/** Undefined: as they are on the disk. */
export function idsOfMount(options: Options, idmap: unknown): IdMap | undefined {
  if (typeof idmap !== 'string' || !isUnprivileged(options)) return undefined
  // On the disk they are then as inside.
  if (idmap === 'passthrough') return unprivilegedMap
  const named = rangesIn(idmap)
  return unprivilegedMap.flatMap((whole) => {
    const own = named.filter(({ kind }) => kind === whole.kind)
    const { kind, outside, count } = whole
    if (own.length === 0) return [{ kind, inside: outside, outside, count }]
    return own.map((range) => ({ kind, inside: range.onDisk, outside: outside + range.inside, count: range.count }))
  })
}

/** What ids inside are on the disk of a mount; undefined where they are the same. */
export function idsOnDisk(options: Options, idmap: unknown): IdMap | undefined {
  if (!isUnprivileged(options) || idmap === 'passthrough') return undefined
  const base = rootOf(options)
  const own = idsOfMount(options, idmap)
  return (
    own?.map(({ kind, inside, outside, count }) => ({ kind, inside: outside - base, outside: inside, count })) ??
    unprivilegedMap
  )
}

/** Who root inside is on the disk of a mount; where he is nobody there, who he is outside. */
export function rootOfMount(options: Options, idmap: unknown): number {
  const root = rootOf(options)
  const own = idsOfMount(options, idmap)?.find(
    ({ kind, outside, count }) => kind === 'uid' && root >= outside && root < outside + count,
  )
  return own === undefined ? root : own.inside + (root - own.outside)
}

/** What no mount can be given; undefined when it can. */
export function wrongIds(options: Options, idmap: unknown): string | undefined {
  if (typeof idmap !== 'string') return undefined
  if (!isUnprivileged(options))
    return 'idmap: ids of a container without a user namespace are those on the disk already'
  if (idmap === 'passthrough') return undefined
  const ranges = rangesIn(idmap)
  for (const whole of unprivilegedMap) {
    const own = ranges.filter(({ kind }) => kind === whole.kind)
    const beyond = own.find(({ inside, count }) => inside + count > whole.count)
    if (beyond) return `idmap: the container has no ${whole.kind}s beyond ${whole.count - 1}`
    if (own.some(({ onDisk, count }) => onDisk + count > 2 ** 32 - 1))
      return 'idmap: there are no ids beyond 4294967294'
    for (const side of ['inside', 'onDisk'] as const) {
      const sorted = own.toSorted((a, b) => a[side] - b[side])
      const twice = sorted.some(
        (range, at) => at > 0 && (sorted[at - 1]?.[side] ?? 0) + (sorted[at - 1]?.count ?? 0) > range[side],
      )
      if (twice) return `idmap: a ${whole.kind} is named twice`
    }
    if (own.length > mostRanges) return `idmap: at most ${mostRanges} ranges of ${whole.kind}s`
  }
  return undefined
}

/** The kernel takes 340 lines. */
const mostRanges = 300

function rangesIn(text: string) {
  return text.split(';').map((one) => {
    const [kind, inside, onDisk, count] = one.split(':')
    return {
      kind: kind === 'u' ? ('uid' as const) : ('gid' as const),
      inside: Number(inside),
      onDisk: Number(onDisk),
      count: Number(count),
    }
  })
}
