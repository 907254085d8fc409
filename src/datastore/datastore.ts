/**
 * A datastore: sealed, deduplicated, and nothing in it is ever changed.
 *
 * Who may work beside whom: everybody, on any number of machines. Writers add packs, then a segment, then a manifest, and
 * rely on chunks they find. Readers look again when something has moved. Prune removes manifests. Only the collector
 * removes packs, in two steps: it first condemns chunks nobody needs, which no writer then takes for there; later, when
 * no writer from before is left and still no manifest needs them, it removes them (`garbage.ts`).
 */
import { hostname } from 'node:os'
import { Fault, isFault, missing } from '#base/fault.ts'
import { checkProperties } from '#base/schema/check.ts'
import { enumOf, integer, string } from '#base/schema/schema.ts'
import { unseal } from './sealed.ts'
import type { BackupReader } from './restore/reader.ts'
import type { BackupWriter } from './backup/writer.ts'
import { ChunkIndex } from './index/chunk-index.ts'
import { ChunkReader } from './chunks/chunk-reader.ts'
import type { DatastoreDeps } from './deps.ts'
import { chunkSizes, formatMaximumBytes, formatVersion } from './format.ts'
import { findKeys, type FoundKeys, numberAfter } from './keys/found-keys.ts'
import { isConfirmed, type KeyFile, keyFileName, printKeyFile, type Unlocked, unlock } from './keys/key-file.ts'
import type { Keyring } from './keys/keyring.ts'
import { Lease, type LeaseKind, liveLeases } from './places/lease.ts'
import {
  manifestName,
  openManifest,
  parseManifest,
  type ManifestBody,
  type ManifestHead,
  type SealedManifest,
} from './points/manifest.ts'
import { changeMarks, type ListedMarks, listMarks, type Marks, readMarks, removeMarks } from './points/marks.ts'
import { lockedFault, type Place } from './places/place.ts'
import { isBelow, pathOfPoint, pointOfPath, printPoint, type RestorePoint } from './point.ts'
import { grouped, readAhead } from './window.ts'
import type { SlotSecret } from './keys/slot.ts'

/** Manifests read at once, and signatures checked. */
const [listedAtOnce, checkedAtOnce] = [16, 64]
const manifestFileMaximumBytes = 96 * 1024 * 1024

const formatProperties = {
  format: enumOf(['hakobune-datastore']),
  version: integer({ minimum: 1, maximum: 65_535 }),
  id: string({ maxLength: 36 }),
  created: integer({ minimum: 0, maximum: 253_402_300_799 }),
  chunkBytes: integer({ minimum: chunkSizes[0], maximum: chunkSizes[2] }),
  signer: string({ maxLength: 44 }),
}

export interface DatastoreFacts {
  readonly id: string
  readonly created: number
  readonly chunkBytes: number
  /** Public key manifests are signed with, 32 bytes. */
  readonly signer: Buffer
}

/** One line of a list. A manifest that cannot be read is listed with its damage. */
export interface ListedPoint {
  readonly point: RestorePoint
  readonly marks: Marks
  readonly head?: ManifestHead
  readonly damage?: string
}

/** @throws Fault `missing`, `damaged`, or `invalid` for a format this version does not know */
export async function openDatastore(place: Place, deps: DatastoreDeps): Promise<Datastore> {
  const text = await place.get('format', formatMaximumBytes)
  if (!text) throw missing('datastore', place.label)
  const name = `'format' of the datastore '${place.label}'`
  const value = Object(unseal(text.toString('utf8'), name)) as Record<string, unknown>
  if (value.format === 'hakobune-datastore' && value.version !== formatVersion) {
    throw new Fault(
      'invalid',
      `the datastore '${place.label}' has format version ${String(value.version)}; this program reads version ${formatVersion}`,
      { remedy: 'Use the version of Hakobune that wrote it.' },
    )
  }
  const checked = checkProperties(formatProperties, value)
  if (!checked.ok || !chunkSizes.some((size) => size === checked.values.chunkBytes)) {
    throw new Fault('damaged', `${name} does not describe a datastore`)
  }
  const { id, created, chunkBytes, signer } = checked.values
  return new Datastore(place, deps, { id, created, chunkBytes, signer: Buffer.from(signer, 'base64') })
}

/** What can be done without a key. */
export class Datastore {
  readonly place: Place
  readonly deps: DatastoreDeps
  readonly facts: DatastoreFacts
  /** Key files that were said to count for nothing. */
  readonly #passedOver = new Set<string>()

  constructor(place: Place, deps: DatastoreDeps, facts: DatastoreFacts) {
    this.place = place
    this.deps = deps
    this.facts = facts
  }

  /** How the keys are locked now. @throws Fault `damaged` */
  async keyFile(): Promise<KeyFile> {
    const { files } = await this.#keyFiles()
    return files[0]
  }

  /** Names of key files that count for nothing, though their number is higher. */
  async passedOver(): Promise<string[]> {
    return (await this.#keyFiles()).passedOver.map(({ name }) => name)
  }

  async #keyFiles(): Promise<FoundKeys> {
    const found = await findKeys(this.place, this.facts)
    for (const { name, why } of found.passedOver) {
      if (this.#passedOver.has(name)) continue
      this.#passedOver.add(name)
      this.deps.log.warn(
        'a key file proves nothing, and is passed over: it is damaged, or somebody else put it there',
        {
          datastore: this.place.label,
          file: name,
          why,
        },
      )
    }
    return found
  }

  /** @throws Fault `conflict` when somebody else changed the keys meanwhile */
  async putKeyFile(file: KeyFile): Promise<void> {
    if (await this.place.put(keyFileName(file.generation), Buffer.from(printKeyFile(file)))) return
    throw new Fault('conflict', 'the keys were changed by somebody else at the same moment', { remedy: 'Try again.' })
  }

  /**
   * Old ways to the keys must not stay open: what somebody can still undo is no removal.
   * @param generation of a key file that opened to us or that we have just made: anybody who may write here can put one of a
   *   higher number, and none of ours goes because of that
   * @returns until when one of them stays, where it is locked
   */
  async removeOldKeyFiles(generation: number): Promise<number | undefined> {
    const current = keyFileName(generation)
    let latest: number | undefined
    for await (const { name } of this.place.list('keys/')) {
      if (name >= current) continue
      const until = await this.place.lock?.until(name)
      if (until === undefined) await this.place.remove(name)
      else latest = Math.max(latest ?? 0, until)
    }
    return latest
  }

  /** The keys alone, for whoever needs no chunk. @throws Fault `denied`, `damaged` */
  async keys(secret: SlotSecret): Promise<Unlocked> {
    const found = await this.#keyFiles()
    const refusals: Fault[] = []
    for (const file of found.files) {
      try {
        const unlocked = await unlock(file, secret, numberAfter(file, found))
        if (unlocked.keyring.isOf(this.facts.signer)) return unlocked
        const text = `the keys of the datastore '${this.place.label}' are not those it was made with`
        refusals.push(new Fault('damaged', text))
      } catch (fault) {
        if (!(fault instanceof Fault) || !(isFault(fault, 'denied') || isFault(fault, 'damaged'))) throw fault
        refusals.push(fault)
      }
    }
    // What is said of the highest: where nobody has put one of their own there is no other.
    throw refusals[0]
  }

  /** @throws Fault `denied` */
  async unlock(secret: SlotSecret): Promise<OpenDatastore> {
    return this.opened(await this.keys(secret))
  }

  async opened(unlocked: Unlocked): Promise<OpenDatastore> {
    return new OpenDatastore(this, unlocked, await ChunkIndex.open(this.place, this.deps.log))
  }

  /** Names of all backups, oldest first, without reading any. */
  async points(): Promise<RestorePoint[]> {
    const points: RestorePoint[] = []
    for await (const { name } of this.place.list('backups/')) {
      const point = pointOfPath(name.slice('backups/'.length))
      if (point) points.push(point)
    }
    return points.toSorted((a, b) => a.time - b.time || printPoint(a).localeCompare(printPoint(b)))
  }

  /** @throws Fault `missing`, `damaged` */
  async manifest(point: RestorePoint): Promise<SealedManifest> {
    const text = await this.place.get(manifestName(point), manifestFileMaximumBytes)
    if (!text) throw missing('backup', printPoint(point))
    return parseManifest(text.toString('utf8'), point)
  }

  async list(): Promise<ListedPoint[]> {
    const marked = await listMarks(this.place)
    const found: ListedPoint[] = []
    const read = readAhead(await this.points(), listedAtOnce, (point) => this.#read(point, marked))
    // To wake another thread costs as much as a signature: they are handed over many at a time, while the next are read.
    const checked = readAhead(grouped(read, checkedAtOnce), 2, (group) => Promise.all(group.map((one) => one())))
    for await (const group of checked) found.push(...group.filter((one) => one !== undefined))
    return found
  }

  /** @returns what looks at its signature, and tells of nothing when it is not there any more */
  async #read(point: RestorePoint, marked: ListedMarks): Promise<() => Promise<ListedPoint | undefined>> {
    try {
      const manifest = await this.manifest(point)
      const marks = await readMarks(this.place, point, marked)
      const { pointInTime, finished } = manifest
      return async () => {
        const isForged = !(await manifest.whetherSigned(this.facts.signer))
        const damage = isForged ? 'it is not signed by this datastore' : marks.damage
        return { point, marks, head: { point, pointInTime, finished }, ...(damage === undefined ? {} : { damage }) }
      }
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      return async () => (fault.kind === 'missing' ? undefined : { point, marks: {}, damage: fault.message })
    }
  }

  /** @throws Fault `damaged` */
  marks(point: RestorePoint): Promise<Marks> {
    return readMarks(this.place, point)
  }

  /** Some of its content may be gone: what builds upon it looks for every chunk, and stores anew what is not there. */
  async isMarkedDamaged(point: RestorePoint): Promise<boolean> {
    return (await this.marks(point)).damage !== undefined
  }

  /** Changes notes, protection or what the last check found; what is not named stays. @throws Fault `missing` */
  async mark(point: RestorePoint, change: Marks): Promise<void> {
    await this.manifest(point)
    await changeMarks({ place: this.place, log: this.deps.log }, point, change)
  }

  /** The backup vanishes at once; its space comes back by collecting garbage. @throws Fault `missing`, `conflict` */
  async remove(point: RestorePoint): Promise<void> {
    if ((await this.marks(point)).protected) {
      throw new Fault('conflict', `backup ${printPoint(point)} is protected`, {
        remedy: 'Remove the protection first.',
      })
    }
    const until = await this.lockedUntil(point)
    if (until !== undefined) throw lockedFault(`backup ${printPoint(point)}`, until)
    await removeMarks(this.place, point)
    if (!(await this.place.remove(manifestName(point)))) throw missing('backup', printPoint(point))
  }

  /** Seconds since 1970: nobody can remove the backup before; nothing when it may go. */
  lockedUntil(point: RestorePoint): Promise<number | undefined> {
    return this.place.lock?.until(manifestName(point)) ?? Promise.resolve(undefined)
  }

  /** @param reads which backup */
  lease(kind: LeaseKind, reads?: RestorePoint): Promise<Lease> {
    const by = `${hostname()} ${process.pid}`
    return Lease.begin({ place: this.place, ...this.deps }, kind, by, reads && printPoint(reads))
  }

  /** The right to drop and merge parts of the index: one at a time has it. Nothing when somebody else does. */
  async tryTidy(): Promise<Lease | undefined> {
    const needs = { place: this.place, ...this.deps }
    const isFree = async (own: number) => {
      return (await liveLeases(needs)).filter(({ kind }) => kind === 'collect').length === own
    }
    if (!(await isFree(0))) return undefined
    const lease = await this.lease('collect')
    await using undo = new AsyncDisposableStack()
    undo.use(lease)
    // Two who came at the same moment both step back.
    if (!(await isFree(1))) return undefined
    undo.move()
    return lease
  }
}

/** With its keys. */
export class OpenDatastore {
  readonly datastore: Datastore
  readonly unlocked: Unlocked
  readonly index: ChunkIndex
  readonly chunks: ChunkReader

  constructor(datastore: Datastore, unlocked: Unlocked, index: ChunkIndex, chunks?: ChunkReader) {
    this.datastore = datastore
    this.unlocked = unlocked
    this.index = index
    this.chunks = chunks ?? new ChunkReader({ place: datastore.place, keyring: unlocked.keyring, index })
  }

  get keyring(): Keyring {
    return this.unlocked.keyring
  }

  /** What a backup consists of. @throws Fault `missing`, `damaged`, `denied` */
  async body(point: RestorePoint): Promise<ManifestBody> {
    return openManifest(this.keyring, await this.datastore.manifest(point))
  }

  /**
   * Starts a backup. Nothing of it is visible before its `commit`.
   * @param options.closes is disposed of with the writer
   * @throws Fault `conflict` when it exists, or while nobody has confirmed the recovery key
   */
  async begin(
    point: RestorePoint,
    { level = 1, closes }: { readonly level?: number; readonly closes?: AsyncDisposable } = {},
  ): Promise<BackupWriter> {
    pathOfPoint(point)
    const { writer } = this.keyring
    if (writer && !isBelow(point.namespace, writer.namespace)) {
      throw new Fault('denied', `this key adds backups to namespace '${writer.namespace}' alone`, {
        remedy: `Name it: --namespace ${writer.namespace}.`,
      })
    }
    if (!isConfirmed(await this.datastore.keyFile())) {
      throw new Fault(
        'conflict',
        `nobody has confirmed the recovery key of the datastore '${this.datastore.place.label}'`,
        {
          remedy:
            'Show that you have it: hako datastore key confirm. Without it, a lost passphrase loses every backup.',
        },
      )
    }
    const lease = await this.datastore.lease('write')
    try {
      // What others stored and condemned before our lease was there.
      await this.index.reload()
      if (this.index.damage.length > 0) await (await import('./tidy/repair.ts')).mendIndex(this)
      // Loaded by those alone who make backups; so is what reads them.
      const { BackupWriter: Writer } = await import('./backup/writer.ts')
      return await Writer.begin(this, point, { lease, level, closes })
    } catch (fault) {
      await lease[Symbol.asyncDispose]()
      throw fault
    }
  }

  /**
   * The caller disposes of the reader.
   * @param options.closes is disposed of with it
   * @throws Fault `missing`, `damaged`, `denied`
   */
  async open(point: RestorePoint, { closes }: { readonly closes?: AsyncDisposable } = {}): Promise<BackupReader> {
    const lease = await this.#readLease(point)
    try {
      const manifest = await this.datastore.manifest(point)
      const { BackupReader: Reader } = await import('./restore/reader.ts')
      return new Reader(this, manifest, openManifest(this.keyring, manifest), { lease, closes })
    } catch (fault) {
      await lease?.[Symbol.asyncDispose]()
      throw fault
    }
  }

  /** Where nothing can be written, because it is full or read-only, nobody collects much, and a restore is needed most. */
  async #readLease(point: RestorePoint): Promise<Lease | undefined> {
    try {
      return await this.datastore.lease('read', point)
    } catch (cause) {
      this.datastore.deps.log.warn('a backup is read without a lease', { backup: printPoint(point), cause })
      return undefined
    }
  }
}
