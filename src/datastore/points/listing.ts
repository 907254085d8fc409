/**
 * Backups with what is sealed in their manifests, for who has the keys.
 *
 * A manifest is opened once: who lists again remembers it, as long as the place says that the file is the same; the next
 * process too (`kept-list.ts`).
 */
import { Fault, isFault } from '#base/fault.ts'
import type { Keyring } from '../keys/keyring.ts'
import { type Manifest, openManifest, type SealedManifest } from './manifest.ts'
import { listMarks, type Marks, marksName, readMarks, versionOfMarks } from './marks.ts'
import type { Place } from '../places/place.ts'
import { pointOfPath, printPoint, type RestorePoint } from '../point.ts'
import { readAhead } from '../window.ts'

const readsAtOnce = 16
/** A few KiB each. */
const seenMaximum = 10_000

/** A manifest that cannot be read is listed with its damage. */
export interface OpenedPoint {
  readonly point: RestorePoint
  readonly marks: Marks
  readonly manifest?: Manifest
  readonly damage?: string
  /** What it could not be read for. */
  readonly fault?: Fault
}

/** Name, version and what was read. */
export type SeenEntry = readonly [name: string, version: string, value: unknown]

/** What was opened before, for whoever lists the same datastore again. */
export class SeenPoints {
  /** Id of the datastore. */
  readonly datastore: string
  /** How many were read that nobody has kept yet. */
  unkept = 0
  readonly #seen = new Map<string, { readonly version: string; readonly value: unknown }>()

  constructor(datastore: string, kept: readonly SeenEntry[] = []) {
    this.datastore = datastore
    for (const [name, version, value] of kept) this.#seen.set(name, { version, value })
  }

  /** The caller knows by the name what it is. */
  async get<T>(name: string, version: string | undefined, read: () => Promise<T>): Promise<T> {
    const known = this.#seen.get(name)
    if (known && known.version === version) return known.value as T
    const value = await read()
    const [oldest] = this.#seen.keys()
    if (this.#seen.size >= seenMaximum && oldest !== undefined) this.#seen.delete(oldest)
    if (version === undefined) return value
    this.#seen.set(name, { version, value })
    this.unkept += 1
    return value
  }

  /** Lets go of what is not there any more. */
  retain(isThere: (name: string) => boolean): void {
    for (const name of this.#seen.keys()) if (!isThere(name)) this.#seen.delete(name)
  }

  entries(): SeenEntry[] {
    return [...this.#seen].map(([name, { version, value }]) => [name, version, value])
  }
}

export interface ListOptions {
  readonly isWanted?: (point: RestorePoint) => boolean
  readonly seen?: SeenPoints
}

/** What a list asks of a datastore. */
interface Listed {
  readonly place: Place
  readonly facts: { readonly id: string }
  readonly manifest: (point: RestorePoint) => Promise<SealedManifest>
}

/** Oldest first. */
export async function listOpened(
  datastore: Listed,
  keyring: Keyring,
  { isWanted = () => true, seen = new SeenPoints(datastore.facts.id) }: ListOptions = {},
): Promise<OpenedPoint[]> {
  const { place } = datastore
  const marked = await listMarks(place)
  const found: { readonly point: RestorePoint; readonly name: string; readonly version: string | undefined }[] = []
  const there = new Set<string>()
  for await (const { name, version } of place.list('backups/')) {
    there.add(name)
    const point = pointOfPath(name.slice('backups/'.length))
    if (point && isWanted(point)) found.push({ point, name, version })
  }
  seen.retain((name) => there.has(name) || marked.has(name))
  found.sort((a, b) => a.point.time - b.point.time || (printPoint(a.point) < printPoint(b.point) ? -1 : 1))
  const open = async ({ point, name, version }: (typeof found)[number]): Promise<OpenedPoint | undefined> => {
    const marksAt = marksName(point)
    try {
      // What only some have is asked of those alone.
      const marks = marked.has(marksAt)
        ? await seen.get(marksAt, versionOfMarks(marked, point), () => readMarks(place, point, marked))
        : {}
      return await withManifest(point, marks, () => seen.get(name, version, () => opened(datastore, keyring, point)))
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      return { point, marks: {}, damage: fault.message, fault }
    }
  }
  const listed: OpenedPoint[] = []
  for await (const one of readAhead(found, readsAtOnce, open)) if (one) listed.push(one)
  return listed
}

async function opened(datastore: Listed, keyring: Keyring, point: RestorePoint): Promise<Manifest> {
  const sealed = await datastore.manifest(point)
  const { pointInTime, finished } = sealed
  return { point, pointInTime, finished, ...openManifest(keyring, sealed) }
}

/** Nothing when it is not there any more. */
async function withManifest(
  point: RestorePoint,
  marks: Marks,
  read: () => Promise<Manifest>,
): Promise<OpenedPoint | undefined> {
  const { damage } = marks
  try {
    return { point, marks, manifest: await read(), ...(damage === undefined ? {} : { damage }) }
  } catch (fault) {
    if (isFault(fault, 'missing')) return undefined
    if (!(fault instanceof Fault)) throw fault
    return { point, marks, damage: fault.message, fault }
  }
}
