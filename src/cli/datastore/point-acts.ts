/**
 * What `hako datastore` says of the names of backups, and removes by them: no key is needed, and no more of the engine is
 * loaded than the manifests take.
 */
import { Fault } from '#base/fault.ts'
import { keepOptions, kept, readRetention } from '#base/retention.ts'
import type { Datastore, ListedPoint, OpenDatastore } from '#datastore/datastore.ts'
import { unlessDamaged } from '#datastore/maps/disk-map.ts'
import { isSameGuest, printPoint } from '#datastore/point.ts'
import {
  dataBytesOf,
  type ManifestBody,
  type ManifestDisk,
  type ManifestTree,
  newStoredBytesOf,
} from '#datastore/points/manifest.ts'
import { readAhead } from '#datastore/window.ts'
import type { Parsed } from '../arguments.ts'
import { progressOn } from '../progress.ts'
import type { Terminal } from '../terminal.ts'
import { say } from '../text.ts'
import { groupOf, namedAmong, pointNamed } from './naming.ts'
import { hasKey, secretFrom, withDatastore } from './opening.ts'

const bodiesAtOnce = 16
/** As marks are read. */
const notesMaximum = 8_192

/** Those that are named, or all. With a key also how much is in each, which is sealed. */
export async function listRows(directory: string, names: readonly string[], parsed: Parsed, terminal: Terminal) {
  return withDatastore(directory, parsed, async (datastore) => {
    const listed = namedAmong(await datastore.list(), names)
    const rows: object[] = []
    for await (const { one, body } of looked(datastore, listed, parsed, terminal)) rows.push(listRow(one, body))
    return rows
  })
}

/** Each with what is in it, where a key is given. */
async function* looked(datastore: Datastore, listed: readonly ListedPoint[], parsed: Parsed, terminal: Terminal) {
  const open = hasKey(parsed) ? await datastore.unlock(await secretFrom(parsed.params, terminal)) : undefined
  yield* readAhead(listed, bodiesAtOnce, async (one) => ({ one, body: open && (await bodyOf(open, one)) }))
}

function listRow({ point, marks, head, damage }: ListedPoint, body: ManifestBody | undefined) {
  return {
    backup: printPoint(point),
    time: point.time,
    finished: head?.finished,
    ...(body && {
      size: sizeIn(body),
      data: dataBytesOf(body),
      'new-data': newStoredBytesOf(body),
      paths: body.facts.paths,
    }),
    verified: marks.verified,
    protected: marks.protected ?? false,
    damage,
    notes: marks.notes,
  }
}

/** What a key for adding may not read, or is damaged, is listed all the same. */
async function bodyOf(open: OpenDatastore, { point, damage }: ListedPoint): Promise<ManifestBody | undefined> {
  return damage === undefined ? unlessDamaged(open.body(point)) : undefined
}

/** Of a tree what its files hold. */
export function sizeOf(part: ManifestDisk | ManifestTree): number {
  return 'sizeBytes' in part ? part.sizeBytes : part.dataBytes
}

export function sizeIn({ disks, trees }: ManifestBody): number {
  return [...disks, ...trees].reduce((sum, part) => sum + sizeOf(part), 0)
}

/** Changes what is written beside a backup: it stands in the clear, and so it takes no key. */
export async function setMarks(directory: string, name: string, parsed: Parsed) {
  const { notes, protected: isProtected } = parsed.params
  if (notes === undefined && isProtected === undefined) {
    throw new Fault('invalid', 'nothing says what is changed', {
      remedy: 'Give --notes, --protected or --no-protected.',
    })
  }
  return withDatastore(directory, parsed, async (datastore) => {
    const point = await pointNamed(datastore, name)
    await datastore.mark(point, {
      ...(typeof notes === 'string' && { notes: checkedNotes(notes) }),
      ...(isProtected !== undefined && { protected: isProtected === '1' }),
    })
    const marks = await datastore.marks(point)
    return { backup: printPoint(point), protected: marks.protected ?? false, notes: marks.notes }
  })
}

/** @throws Fault `invalid` for what would be too much to be read back */
export function checkedNotes(notes: string): string {
  if (notes.length <= notesMaximum) return notes
  throw new Fault('invalid', `notes: ${notes.length} characters are too many: they may be ${notesMaximum}`)
}

/** What lies there, and what it stands for. With a key also how much that would be without deduplication. */
export async function stats(directory: string, parsed: Parsed, terminal: Terminal) {
  return withDatastore(directory, parsed, async (datastore) => {
    const listed = await datastore.list()
    let [packs, stored] = [0, 0]
    for await (const { sizeBytes } of datastore.place.list('packs/')) {
      packs += 1
      stored += sizeBytes
    }
    let [data, size] = [0, 0]
    for await (const { body } of looked(datastore, listed, parsed, terminal)) {
      if (!body) continue
      data += dataBytesOf(body)
      size += sizeIn(body)
    }
    const [oldest, newest] = [listed[0], listed.at(-1)]
    const unverified = listed.filter(({ marks }) => marks.verified === undefined).length
    const room = await datastore.place.room?.()
    return {
      backups: listed.length,
      guests: new Set(listed.map(({ point }) => groupOf(point))).size,
      oldest: oldest && printPoint(oldest.point),
      newest: newest && printPoint(newest.point),
      protected: listed.filter(({ marks }) => marks.protected === true).length,
      damaged: listed.filter(({ damage }) => damage !== undefined).length,
      unverified,
      packs,
      stored,
      ...(hasKey(parsed) && { size, data, ratio: stored === 0 ? undefined : Math.round((data / stored) * 10) / 10 }),
      ...(room && { avail: room.availableBytes }),
    }
  })
}

/** Which backups outlast `--keep-*`; removes the others unless it is only asked. Space comes back with `gc`. */
export async function prune(directory: string, names: readonly string[], parsed: Parsed, terminal: Terminal) {
  const { params } = parsed
  const given = keepOptions.flatMap((name) => (params[name] === undefined ? [] : [`${name}=${String(params[name])}`]))
  if (given.length === 0) {
    throw new Fault('invalid', 'nothing says what is kept', { remedy: `Give one of: --${keepOptions.join(', --')}.` })
  }
  const retention = readRetention(given.join(','), 'keep')
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone
  return withDatastore(directory, parsed, async (datastore) => {
    const all = namedAmong(await datastore.list(), names)
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
    const gone = going.size - locked.size
    const isDone = params['dry-run'] !== '1'
    const counts = [String(gone), String(all.length - gone)] as const
    terminal.show(say(terminal.language, isDone ? 'pruned' : 'wouldPrune', ...counts, directory))
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
