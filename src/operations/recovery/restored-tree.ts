/**
 * Looks at a tree that was just restored, entry by entry, beside the catalogue it came from. Content was checked chunk by
 * chunk on its way; that every entry is there, as what it was and whose it was, only the file system can say.
 */
import { createHash } from 'node:crypto'
import type { TreeEntry, TreeReader } from '#datastore/tree/reader.ts'
import { below } from '#datastore/tree/record.ts'
import { type SourceEntry, type TreeSource, treeSource } from '#datastore/tree/source.ts'
import { Fault } from '#base/fault.ts'
import { type Attribute, parseAttributes } from '#host/files/attribute-calls.ts'
import type { IdMap } from '#host/lxc/id-map.ts'

export const treeDigestKind =
  'SHA-256 over path, kind, mode, owner, size, time and target of each entry, as read from what was restored; equal to that of the catalogue'

export interface RestoredPlace {
  readonly target: string
  readonly idMap: IdMap | undefined
  /** Attributes are all there to be compared. */
  readonly hasAttributes: boolean
  readonly signal?: AbortSignal | undefined
}

/** @returns the digest of both. @throws Fault `unproven` naming the first entry that is not as it was */
export async function compareTree(tree: TreeReader, place: RestoredPlace): Promise<string> {
  const hash = createHash('sha256')
  const source = treeSource({ root: place.target, idMap: place.idMap })
  const there = entriesIn(source, place)
  for await (const wanted of wantedOf(tree, place)) {
    if (place.signal?.aborted) throw new Fault('aborted', 'the comparison was interrupted')
    const found = there.next()
    if (found.done === true) throw unlike(tree, wanted.path, 'it is not there')
    if (found.value.path !== wanted.path)
      throw unlike(tree, wanted.path, `'/${shown(found.value.path)}' is there instead`)
    const odd = Object.keys(wanted.facts).find((name) => wanted.facts[name] !== found.value.facts[name])
    if (odd !== undefined) {
      const [was, is] = [wanted.facts[odd], found.value.facts[odd]].map((value) => shown(String(value)))
      throw unlike(tree, wanted.path, `its ${odd} is ${is}, was ${was}`)
    }
    hash.update(`${wanted.path}\0${Object.values(wanted.facts).join('\0')}\n`, 'latin1')
  }
  const more = there.next()
  if (more.done !== true) throw unlike(tree, more.value.path, 'it was not backed up')
  return hash.digest('hex')
}

interface Described {
  /** Each character a byte. */
  readonly path: string
  readonly facts: Readonly<Record<string, string | number>>
}

async function* wantedOf(tree: TreeReader, { idMap, hasAttributes }: RestoredPlace): AsyncGenerator<Described> {
  const leftOut = new Set<string>()
  for await (const entry of tree.entries()) {
    const isOfLeftOut = entry.kind === 'hard link' && leftOut.has(entry.target ?? '')
    if (!isCompared(entry.path) || isOfLeftOut) continue
    if (isDevice(entry) && idMap !== undefined) {
      leftOut.add(entry.path)
      continue
    }
    const { place, device } = entry
    const { seconds, nanoseconds } = entry.modified
    yield {
      path: entry.path,
      facts: factsOf(entry, {
        time: `${seconds}.${nanoseconds}`,
        target: device ? `${device.major}:${device.minor}` : (entry.target ?? ''),
        attributes: hasAttributes && place ? textOf(await tree.attributes(entry)) : '',
      }),
    }
  }
}

function* entriesIn(source: TreeSource, { idMap, hasAttributes }: RestoredPlace): Generator<Described> {
  for (const folder of source.folders()) {
    for (const entry of folder.entries()) {
      const path = below(folder.path, entry.name)
      if (!isCompared(path) || (isDevice(entry) && idMap !== undefined)) continue
      const target = entry.target() ?? ''
      yield {
        path,
        facts: factsOf(entry, {
          time: timeOf(entry),
          target: isDevice(entry) ? deviceOf(target) : target,
          attributes: hasAttributes ? textOf(parseAttributes(entry.attributes()) ?? []) : '',
        }),
      }
    }
  }
}

/** A file system has this folder of its own, in a place where a tree may have none. */
function isCompared(path: string): boolean {
  return path !== 'lost+found' && !path.startsWith('lost+found/')
}

/** Nobody but root of the node may make these, so what is restored for others is without. */
function isDevice({ kind }: Pick<TreeEntry, 'kind'>): boolean {
  return kind.endsWith('device')
}

function factsOf(
  { kind, mode, uid, gid, sizeBytes }: Pick<SourceEntry, 'kind' | 'mode' | 'uid' | 'gid' | 'sizeBytes'>,
  more: { readonly time: string; readonly target: string; readonly attributes: string },
): Described['facts'] {
  // Of a further name the first one tells all.
  if (kind === 'hard link') return { kind, target: more.target }
  return { kind, mode: mode.toString(8), owner: `${uid}:${gid}`, size: sizeBytes, ...more }
}

function timeOf({ identity }: SourceEntry): string {
  return `${identity.readBigInt64LE(8)}.${identity.readUInt32LE(16)}`
}

function deviceOf(target: string): string {
  const bytes = Buffer.from(target, 'latin1')
  return `${bytes.readUInt32LE(0)}:${bytes.readUInt32LE(4)}`
}

function textOf(attributes: readonly Attribute[]): string {
  return attributes
    .map(({ name, value }) => `${name}=${Buffer.from(value).toString('hex')}`)
    .toSorted()
    .join(' ')
}

function unlike(tree: TreeReader, path: string, how: string): Fault {
  return new Fault('unproven', `${tree.facts.name}: '/${shown(path)}' is not as it was backed up: ${how}`)
}

function shown(text: string): string {
  return Buffer.from(text, 'latin1').toString('utf8').slice(0, 200)
}
