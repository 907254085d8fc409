/**
 * Which ids of the machine the ids inside a container are, and running a program under such a map.
 *
 * The program is root inside and nobody in particular outside: what it makes belongs to the ids of the map, and what
 * lies outside of the map it can neither own nor give away.
 */
import { Fault } from '#base/fault.ts'
import { readIfPresent } from '../files.ts'
import type { Argv } from '../host.ts'

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

/** How many ids root may hand out, in `/etc/subuid` and `/etc/subgid`: newuidmap holds whoever asks to it. */
const files = { uid: '/etc/subuid', gid: '/etc/subgid' } as const

/** @throws Fault `invalid` when root may not hand out ids of this map, naming them and how that is changed */
export async function requireAllowed(map: IdMap): Promise<void> {
  const texts = { uid: (await readIfPresent(files.uid)) ?? '', gid: (await readIfPresent(files.gid)) ?? '' }
  for (const range of map) {
    if (isAllowed(range, texts[range.kind])) continue
    const { kind, outside, count } = range
    const [first, last] = [outside, outside + count - 1]
    throw new Fault('invalid', `root may not give the ${kind}s ${first} to ${last} to containers`, {
      remedy: `Add them to ${files[kind]}: usermod --add-sub${kind}s ${first}-${last} root`,
    })
  }
}

/** @param text of the file: lines such as `root:100000:65536` */
export function isAllowed({ outside, count }: IdRange, text: string): boolean {
  const granted = [...text.matchAll(/^(?:root|0):(\d+):(\d+)$/gm)].map(([, first, size]) => [
    Number(first),
    Number(size),
  ])
  return granted.some(([first = 0, size = 0]) => outside >= first && outside + count <= first + size)
}

/** The id inside that an id of the machine is, or nothing when it is none of the container's. */
export function insideId(map: IdMap, kind: IdRange['kind'], id: number): number | undefined {
  const range = map.find((one) => one.kind === kind && id >= one.outside && id < one.outside + one.count)
  return range && range.inside + (id - range.outside)
}
