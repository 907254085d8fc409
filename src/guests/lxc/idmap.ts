/** Users of a container as users of the node: root inside is user 100000 outside, and nobody there. */
import type { IdMap } from '#host/lxc/id-map.ts'
import type { Options } from '../config.ts'
import { isUnprivileged } from './features.ts'

const range = { inside: 0, outside: 100_000, count: 65_536 }
export const unprivilegedMap: IdMap = [
  { kind: 'uid', ...range },
  { kind: 'gid', ...range },
]

/** Undefined for a privileged container: everybody is who they are outside. */
export function idMapOf(options: Options): IdMap | undefined {
  return isUnprivileged(options) ? unprivilegedMap : undefined
}

/** Who root inside is outside. */
export function rootOf(options: Options): number {
  return isUnprivileged(options) ? range.outside : 0
}
