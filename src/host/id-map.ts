/**
 * Which ids of the machine the ids inside a container are, and running a program under such a map.
 *
 * The program is root inside and nobody in particular outside: what it makes belongs to the ids of the map, and what
 * lies outside of the map it can neither own nor give away.
 */
import type { Argv } from './host.ts'

export interface IdRange {
  readonly kind: 'uid' | 'gid'
  /** First id inside, the id of the machine that it is, and how many follow. */
  readonly inside: number
  readonly outside: number
  readonly count: number
}
export type IdMap = readonly IdRange[]

/** The id of the machine, or nothing when the map does not reach so far. */
export function outsideId(map: IdMap, kind: IdRange['kind'], id: number): number | undefined {
  const range = map.find((one) => one.kind === kind && id >= one.inside && id < one.inside + one.count)
  return range && range.outside + (id - range.inside)
}

/** The program as root of a user namespace of its own, with this map. */
export function underIdMap(map: IdMap, argv: Argv): Argv {
  const ranges = map.flatMap(({ kind, inside, outside, count }) => [
    '-m',
    `${kind === 'uid' ? 'u' : 'g'}:${inside}:${outside}:${count}`,
  ])
  return ['lxc-usernsexec', ...ranges, '--', ...argv]
}
