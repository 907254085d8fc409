/**
 * Backups by volume id: `local:backup/vm/100/2026-11-20T10:00:00Z` is a backup in the datastore of the
 * storage `local`. Knows storages only as places of datastores, and guests only as numbers.
 *
 * Nothing is kept open between calls, so any number of processes may use one datastore, and a storage can go away.
 */
import { seconds } from '#base/clock.ts'
import type { DatastoreAt } from '#base/datastore-at.ts'
import { Fault, isFault, missing } from '#base/fault.ts'
import { loaderFor } from '#base/on-demand.ts'
import { asVmid, asVolumeId, splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { type BackupId, type BackupType, parseBackupId, printBackupId } from '#datastore/backup-id.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import type { BackupWriter } from '#datastore/backup/writer.ts'
import { condemnedLists } from '#datastore/index/condemned.ts'
import type { Datastore, OpenDatastore } from '#datastore/datastore.ts'
import type * as garbage from '#datastore/collect/garbage.ts'
import type { Watching } from '#datastore/collect/watched.ts'
import { type KeptListNeeds, readKeptList, writeKeptList } from '#datastore/points/kept-list.ts'
import type { Keyring } from '#datastore/keys/keyring.ts'
import { liveLeases } from '#datastore/places/lease.ts'
import { listOpened, type OpenedPoint, SeenPoints } from '#datastore/points/listing.ts'
import { dataBytesOf, type Manifest, openManifest } from '#datastore/points/manifest.ts'
import { newPoint, type RestorePoint } from '#datastore/point.ts'
import type { SlotSecret } from '#datastore/keys/slot.ts'
import type * as verify from '#datastore/verify/verify.ts'
import type * as verifyStore from '#datastore/verify/verify-datastore.ts'
import type * as firstTakeOver from './first-format/take-over.ts'
import type * as firstDatastore from './first-format/datastore.ts'
import { isOfFirstFormat } from './first-format/found.ts'
import { changePlaces, firstPlaceOf, freshPlaceOf } from './take-over.ts'
import {
  attachDatastore,
  type HeldDatastore,
  keepWaysInto,
  holdDatastore,
  holdOrMake,
  type NodeDatastoreNeeds,
  nodeKeysTo,
  unlockDatastore,
} from './node-datastore.ts'

const load = loaderFor(import.meta.url)

export interface BackupNeeds extends NodeDatastoreNeeds {
  readonly storage: { readonly datastorePath: (name: string) => Promise<DatastoreAt> }
  /** The guest that still lacks what is in the backup, and so needs it. */
  readonly neededBy?: (volid: VolumeId) => Promise<Vmid | undefined>
  /** Folder for what lists have opened, of the node's own; without one the next process opens it again. */
  readonly listsDir?: string
}

/** Of what: a virtual machine or a container. */
export type GuestBackupType = Exclude<BackupType, 'host'>

export interface BackupFilter {
  readonly storage: string
  readonly vmid?: number | undefined
  readonly type?: GuestBackupType | undefined
}

export interface ListedBackup {
  readonly volid: VolumeId
  readonly type: GuestBackupType
  readonly vmid: Vmid
  /** Seconds since 1970. */
  readonly ctime: number
  /** Data in it; holes do not count, and neither does that others share it. */
  readonly sizeBytes: number
  readonly notes?: string | undefined
  readonly protected?: boolean | undefined
  /** When it was last checked in full, in seconds since 1970. */
  readonly verified?: number | undefined
  /** What was unusual about its change. */
  readonly hint?: string | undefined
  /** Why it cannot be read, or what the last check found. */
  readonly damage?: string | undefined
  readonly manifest?: Manifest | undefined
}

export interface BegunBackup {
  readonly volid: VolumeId
  readonly writer: BackupWriter
}

export interface VerifyRequest {
  /** Share of the work done, 0 to 1, and bytes that were read. */
  readonly onProgress?: ((fraction: number, bytes: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** Whoever collects or merges at the moment is done soon, mostly. */
const patienceMs = 30_000

export class BackupService {
  readonly #needs: BackupNeeds
  /** By storage. */
  readonly #seen = new Map<string, Promise<SeenPoints>>()

  constructor(needs: BackupNeeds) {
    this.#needs = needs
  }

  /** @throws Fault `conflict` before somebody has confirmed a recovery key, `invalid` when the storage holds no backups */
  async requireReady(storage: string): Promise<void> {
    await this.#needs.storage.datastorePath(storage)
    await this.#needs.keys.requireRecovery()
  }

  /** Starts a backup of a guest under the time of now. @throws Fault `exhausted`, and what `requireReady` does */
  async begin(
    storage: string,
    { vmid, type = 'vm' }: { readonly vmid: Vmid; readonly type?: GuestBackupType },
  ): Promise<BegunBackup> {
    await this.requireReady(storage)
    const held = await holdOrMake(await this.#needs.storage.datastorePath(storage), this.#needs)
    try {
      const open = await unlockDatastore(held.datastore, this.#needs)
      const ofGuest = { namespace: held.namespace, type, id: String(vmid) }
      const point = newPoint(ofGuest, seconds(this.#needs.clock), await held.datastore.points())
      return { volid: volidOf(storage, point), writer: await open.begin(point, { closes: held }) }
    } catch (cause) {
      await held[Symbol.asyncDispose]()
      throw cause
    }
  }

  /** Backups of guests on a storage, oldest first; of one id or type where that is given. Damaged ones are listed as such. */
  async list({ storage, vmid, type }: BackupFilter): Promise<ListedBackup[]> {
    try {
      await using held = await this.#hold(storage)
      const { keyring } = await nodeKeysTo(held.datastore, this.#needs)
      const isWanted = (point: RestorePoint) =>
        point.namespace === held.namespace &&
        (type === undefined || point.type === type) &&
        (vmid === undefined || point.id === String(vmid))
      const seen = await this.#seenOn(storage, held.datastore, keyring)
      const opened = await listOpened(held.datastore, keyring, { isWanted, seen })
      if (this.#needs.listsDir !== undefined) await writeKeptList(seen, this.#keptNeeds(this.#needs.listsDir, keyring))
      return opened.flatMap((one) => listed(storage, one) ?? [])
    } catch (cause) {
      // A storage that never held a backup has no datastore yet.
      if (isFault(cause, 'missing')) return []
      throw cause
    }
  }

  /** The caller disposes of the reader. @throws Fault `missing`, `damaged` naming the file */
  async open(volid: VolumeId): Promise<BackupReader> {
    const { storage, id } = parseVolid(volid)
    const held = await this.#holdFor(storage, volid)
    try {
      const point = { namespace: held.namespace, ...id }
      return await (await unlockDatastore(held.datastore, this.#needs)).open(point, { closes: held })
    } catch (cause) {
      await held[Symbol.asyncDispose]()
      throw cause
    }
  }

  /** Its space comes back by `collect`. @throws Fault `conflict` when it is protected or needed, `missing` */
  async remove(volid: VolumeId): Promise<void> {
    const vmid = await this.#needs.neededBy?.(volid)
    if (vmid !== undefined) {
      const text = `backup '${volid}' is needed by VM ${vmid}, which is restored from it while it runs`
      throw new Fault('conflict', text, { remedy: 'Wait until its disks are whole, or destroy that VM.' })
    }
    await this.#on(volid, (datastore, point) => datastore.remove(point))
  }

  /** Changes notes, protection or the hint; what is undefined stays, empty notes are removed. @throws Fault `missing` */
  async annotate(
    volid: VolumeId,
    change: {
      readonly notes?: string | undefined
      readonly protected?: boolean | undefined
      readonly hint?: string | undefined
    },
  ): Promise<void> {
    const given = Object.entries(change).filter(([, value]) => value !== undefined)
    await this.#on(volid, (datastore, point) => datastore.mark(point, Object.fromEntries(given)))
  }

  /** Checks every byte a restore would need, and keeps what was found. @throws Fault `damaged` naming each damaged chunk */
  async verify(volid: VolumeId, { onProgress, signal }: VerifyRequest = {}): Promise<verify.VerifiedBackup> {
    return this.#on(volid, async (datastore, point) => {
      const open = await unlockDatastore(datastore, this.#needs)
      const onBytes = (done: number, all: number) => onProgress?.(Math.min(1, done / Math.max(1, all)), done)
      return load<typeof verify>('#datastore/verify/verify.ts').verifyBackup(open, point, {
        signal,
        onProgress: onBytes,
      })
    })
  }

  /** Checks every file of a storage's datastore. @throws Fault `damaged` naming what, and the backups hit */
  async verifyAll(storage: string, request: VerifyRequest = {}): Promise<verifyStore.VerifiedDatastore> {
    return this.#unlocked(storage, (open) =>
      load<typeof verifyStore>('#datastore/verify/verify-datastore.ts').verifyDatastore(open, request),
    )
  }

  /**
   * Gives back the space of interrupted writers and removed backups, as far as nobody may still rely on it.
   * @throws Fault `conflict` when somebody else does so all the time, `missing` when nobody has written there yet
   */
  async collect(storage: string, options: Watching = {}): Promise<garbage.Collected> {
    const { clock, random } = this.#needs
    const until = clock.monotonic() + patienceMs
    const { collectGarbage } = load<typeof garbage>('#datastore/collect/garbage.ts')
    return this.#unlocked(storage, async (open) => {
      if (open.datastore.place.addsOnly === true) {
        throw new Fault('denied', `what nobody needs on '${storage}' is given back by whoever serves it: we only add`)
      }
      for (;;) {
        try {
          const collected = await collectGarbage(open, options)
          await open.datastore.removeOldKeyFiles(open.unlocked.file.generation)
          return collected
        } catch (fault) {
          if (!isFault(fault, 'conflict') || clock.monotonic() > until) throw fault
          // Two who both stepped back must not come back at the same moment.
          await clock.sleep(100 + (random.bytes(1)[0] ?? 0), options.signal)
        }
      }
    })
  }

  /** Bytes of everything that is packed on a storage; nothing where nobody has written yet. */
  async storedBytes(storage: string): Promise<number | undefined> {
    try {
      await using held = await this.#hold(storage)
      let bytes = 0
      for await (const { sizeBytes } of held.datastore.place.list('packs/')) bytes += sizeBytes
      return bytes
    } catch (fault) {
      if (isFault(fault, 'missing')) return undefined
      throw fault
    }
  }

  /** Whether there may be something to collect now: for certain, perhaps, or not before those who write have ended. */
  async garbage(storage: string): Promise<'waiting' | 'perhaps' | 'none'> {
    try {
      await using held = await this.#hold(storage)
      const { place, deps } = held.datastore
      // It is given back there by others.
      if (place.addsOnly === true) return 'none'
      const writers = (await liveLeases({ place, ...deps })).filter(({ kind }) => kind !== 'read')
      if (writers.length > 0) return 'none'
      return (await condemnedLists(place)).length > 0 ? 'waiting' : 'perhaps'
    } catch (fault) {
      if (isFault(fault, 'missing')) return 'none'
      throw fault
    }
  }

  /**
   * Takes over what the storage has in the first format.
   * @throws Fault `missing` when there is nothing of it, `aborted`, `exhausted`; what `requireReady` does
   */
  async takeOver(
    storage: string,
    options: firstTakeOver.TakeOverOptions = {},
  ): Promise<firstTakeOver.TakenOver & { readonly from: string }> {
    await this.requireReady(storage)
    const path = await this.#needs.storage.datastorePath(storage)
    if (typeof path !== 'string') throw missing('datastore of the first format', storage)
    const isHere = await isOfFirstFormat(path)
    const taken = await this.#takeOver(isHere ? [path, freshPlaceOf(path)] : [firstPlaceOf(path), path], options)
    if (isHere) await changePlaces(path)
    return { ...taken, from: firstPlaceOf(path) }
  }

  async #takeOver(
    [from, to]: readonly [string, string],
    options: firstTakeOver.TakeOverOptions,
  ): Promise<firstTakeOver.TakenOver> {
    const { FirstDatastore } = load<typeof firstDatastore>('./first-format/datastore.ts')
    const { takeOver } = load<typeof firstTakeOver>('./first-format/take-over.ts')
    const old = await FirstDatastore.open(from)
    await using held = await holdOrMake(to, this.#needs)
    return await takeOver(old, await unlockDatastore(held.datastore, this.#needs), options)
  }

  /** Gives the node its ways into a datastore that was made elsewhere. @throws Fault `denied`, `missing` */
  async attach(storage: string, secret: SlotSecret): Promise<void> {
    await using held = await this.#hold(storage)
    await attachDatastore(held.datastore, secret, this.#needs)
  }

  /** Sees to it that the recovery key in force opens the datastore. @returns false when there is none */
  async keepWays(storage: string): Promise<boolean> {
    return (await this.onDatastore(storage, keepWaysInto)) !== undefined
  }

  /** Does something with a datastore and what the node has. @returns nothing when the storage has none */
  async onDatastore<T>(
    storage: string,
    act: (datastore: Datastore, needs: NodeDatastoreNeeds) => Promise<T>,
  ): Promise<{ readonly came: T } | undefined> {
    try {
      await using held = await this.#hold(storage)
      return { came: await act(held.datastore, this.#needs) }
    } catch (fault) {
      if (isFault(fault, 'missing')) return undefined
      throw fault
    }
  }

  /** Everything known about one backup. @throws Fault `missing`, `damaged` */
  async describe(volid: VolumeId): Promise<ListedBackup & { readonly manifest: Manifest }> {
    return this.#on(volid, async (datastore, point) => {
      const sealed = await datastore.manifest(point)
      const { keyring } = await nodeKeysTo(datastore, this.#needs)
      const { pointInTime, finished } = sealed
      const manifest = { point, pointInTime, finished, ...openManifest(keyring, sealed) }
      const info = listed(parseVolid(volid).storage, { point, manifest, marks: await datastore.marks(point) })
      if (!info) throw missing('volume', volid)
      return { ...info, manifest }
    })
  }

  async #on<T>(volid: VolumeId, act: (datastore: Datastore, point: RestorePoint) => Promise<T>): Promise<T> {
    const { storage, id } = parseVolid(volid)
    await using held = await this.#holdFor(storage, volid)
    return await act(held.datastore, { namespace: held.namespace, ...id })
  }

  async #unlocked<T>(storage: string, act: (open: OpenDatastore) => Promise<T>): Promise<T> {
    await using held = await this.#hold(storage)
    return await act(await unlockDatastore(held.datastore, this.#needs))
  }

  async #holdFor(storage: string, volid: VolumeId): Promise<HeldDatastore> {
    try {
      return await this.#hold(storage)
    } catch (cause) {
      throw isFault(cause, 'missing') && cause.message.startsWith('datastore')
        ? missing('volume', volid, { cause })
        : cause
    }
  }

  async #seenOn(storage: string, { facts }: Datastore, keyring: Keyring): Promise<SeenPoints> {
    const known = this.#seen.get(storage)
    if (known && (await known).datastore === facts.id) return known
    const { listsDir } = this.#needs
    const seen =
      listsDir === undefined
        ? Promise.resolve(new SeenPoints(facts.id))
        : readKeptList(facts.id, this.#keptNeeds(listsDir, keyring))
    this.#seen.set(storage, seen)
    return seen
  }

  #keptNeeds(dir: string, keyring: Keyring): KeptListNeeds {
    return { dir, keyring, random: this.#needs.random }
  }

  async #hold(storage: string): Promise<HeldDatastore> {
    return holdDatastore(await this.#needs.storage.datastorePath(storage), this.#needs)
  }
}

function parseVolid(volid: VolumeId): { storage: string; id: BackupId } {
  const { storage, name } = splitVolumeId(volid)
  return { storage, id: parseBackupId(name.replace(/^backup\//, '')) }
}

function volidOf(storage: string, id: BackupId): VolumeId {
  return asVolumeId(`${storage}:backup/${printBackupId(id)}`)
}

/** Nothing for a backup of what is no guest. */
function listed(
  storage: string,
  { point, manifest, marks, damage = marks.damage }: OpenedPoint,
): ListedBackup | undefined {
  if (point.type === 'host' || !/^[1-9]\d{2,8}$/.test(point.id)) return undefined
  const notes = marks.notes === '' ? undefined : marks.notes
  return {
    volid: volidOf(storage, point),
    type: point.type,
    vmid: asVmid(point.id),
    ctime: point.time,
    sizeBytes: manifest ? dataBytesOf(manifest) : 0,
    ...(notes === undefined ? {} : { notes }),
    ...(marks.protected ? { protected: true } : {}),
    ...(marks.verified === undefined ? {} : { verified: marks.verified }),
    ...(marks.hint === undefined ? {} : { hint: marks.hint }),
    ...(damage === undefined ? {} : { damage }),
    ...(manifest ? { manifest } : {}),
  }
}
