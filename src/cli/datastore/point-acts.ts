/**
 * What `hako datastore` says of the names of backups, and removes by them: no key is needed, and no more of the engine is
 * loaded than the manifests take.
 */
import { Fault } from '#base/fault.ts'
import { keepOptions, kept, readRetention } from '#base/retention.ts'
import type { ListedPoint } from '#datastore/datastore.ts'
import { isSameGuest, printPoint } from '#datastore/point.ts'
import type { Parsed } from '../arguments.ts'
import { progressOn } from '../progress.ts'
import type { Terminal } from '../terminal.ts'
import { withDatastore } from './opening.ts'

export async function listRows(directory: string, parsed: Parsed) {
  return withDatastore(directory, parsed, async (datastore) =>
    (await datastore.list()).map(({ point, marks, head, damage }) => ({
      backup: printPoint(point),
      time: point.time,
      finished: head?.finished,
      verified: marks.verified,
      protected: marks.protected ?? false,
      damage,
      notes: marks.notes,
    })),
  )
}

/** Which backups outlast `--keep-*`; removes the others unless it is only asked. Space comes back with `gc`. */
export async function prune(directory: string, parsed: Parsed, terminal: Terminal) {
  const { params } = parsed
  const given = keepOptions.flatMap((name) => (params[name] === undefined ? [] : [`${name}=${String(params[name])}`]))
  if (given.length === 0) {
    throw new Fault('invalid', 'nothing says what is kept', { remedy: `Give one of: --${keepOptions.join(', --')}.` })
  }
  const retention = readRetention(given.join(','), 'keep')
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone
  return withDatastore(directory, parsed, async (datastore) => {
    const all = await datastore.list()
    const counted = all.filter(({ marks, damage }) => marks.protected !== true && damage === undefined)
    const staying = new Set<ListedPoint>()
    for (const group of groups(counted)) {
      const dated = group.map((one) => ({ one, ctime: one.point.time }))
      for (const { one } of kept(dated, retention, zone)) staying.add(one)
    }
    const going = new Set(counted.filter((one) => !staying.has(one)))
    const locked = new Map<ListedPoint, number>()
    const show = progressOn(terminal, { isQuiet: parsed.global.quiet })
    for (const [number, one] of [...going].entries()) {
      show({ phase: 'remove', fraction: number / going.size })
      const until = await datastore.lockedUntil(one.point)
      if (until !== undefined) locked.set(one, until)
      else if (params['dry-run'] !== '1') await datastore.remove(one.point)
    }
    return all.map((one) => ({
      backup: printPoint(one.point),
      time: one.point.time,
      mark: markOf(one, going, locked),
      until: locked.get(one),
    }))
  })
}

function markOf(one: ListedPoint, going: ReadonlySet<ListedPoint>, locked: ReadonlyMap<ListedPoint, number>): string {
  if (one.marks.protected === true) return 'protected'
  // It goes with a later run.
  if (locked.has(one)) return 'locked'
  return going.has(one) ? 'remove' : 'keep'
}

function groups(points: readonly ListedPoint[]): ListedPoint[][] {
  const found: ListedPoint[][] = []
  for (const one of points) {
    const group = found.find(([first]) => first !== undefined && isSameGuest(first.point, one.point))
    if (group) group.push(one)
    else found.push([one])
  }
  return found
}
