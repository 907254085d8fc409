/**
 * What is done for the datastores of a node beside backups: whether they could be destroyed is tried, a part of what is
 * stored is read again, and copies are kept elsewhere.
 */
import { isFault, messageOf } from '#base/fault.ts'
import { type CanaryVerdict, tryCanary } from '#datastore/locks/canary.ts'
import type { Datastore } from '#datastore/datastore.ts'
import { backupsHit, foundByLook, markHit } from '#datastore/verify/hits.ts'
import { packName } from '#datastore/packs/pack.ts'
import { pointOfPath, printPoint } from '#datastore/point.ts'
import { manifestName } from '#datastore/points/manifest.ts'
import { mendOpening } from '#datastore/copy/opening.ts'
import { brokenManifests } from '#datastore/copy/whole-manifest.ts'
import { checkedIndex } from '#datastore/verify/whole-index.ts'
import { refetch } from '#datastore/copy/refetch.ts'
import { type Synced, syncDatastore, type SyncOptions } from '#datastore/copy/sync.ts'
import { type VerifiedPacks, verifyPacks, type VerifyPacksOptions } from '#datastore/verify/verify.ts'
import {
  type HeldDatastore,
  holdDatastore,
  type NodeDatastoreNeeds,
  nodeKeysTo,
  placeOf,
  unlockDatastore,
} from './node-datastore.ts'
import type { BackupNeeds } from './service.ts'

export interface UpkeepNeeds extends NodeDatastoreNeeds {
  readonly storage: BackupNeeds['storage']
}

export interface RollingOptions extends VerifyPacksOptions {
  /** Storage with a copy, from which what is damaged is fetched. */
  readonly replica?: string | undefined
  /** Told of what is wrong, a line each, before anything of it is mended: who dies in between has told of it all the same. */
  readonly onFound?: ((damage: readonly string[]) => Promise<void>) | undefined
}

export interface RolledOver extends VerifiedPacks {
  /** Names of backups that are hit, before anything was fetched. */
  readonly hit: readonly string[]
  /** Files that are whole again. */
  readonly fetched: readonly string[]
  /** Files that are damaged still. */
  readonly lost: readonly string[]
  /** What was found of the index; it is mended from the packs, unless a part is among what is lost. */
  readonly mended: readonly string[]
}

export class DatastoreUpkeep {
  readonly #needs: UpkeepNeeds

  constructor(needs: UpkeepNeeds) {
    this.#needs = needs
  }

  /** Nothing where nobody has written yet. @throws Fault `unavailable` */
  async about(storage: string): Promise<{ readonly id: string; readonly isGuarded: boolean } | undefined> {
    try {
      await using held = await this.#hold(storage)
      const { facts, place } = held.datastore
      return { id: facts.id, isGuarded: place.lock !== undefined || place.addsOnly === true }
    } catch (fault) {
      if (isFault(fault, 'missing')) return undefined
      throw fault
    }
  }

  /** Tries to destroy what is there by all the node may do. @throws Fault `unproven` where nothing ever refuses */
  async canary(storage: string): Promise<CanaryVerdict> {
    await using held = await this.#hold(storage)
    return await tryCanary(held.datastore)
  }

  /** Reads packs, those first that were not for longest, the index and all manifests; backups that are hit say so from then on. */
  async roll(storage: string, { replica, onFound = async () => {}, ...options }: RollingOptions): Promise<RolledOver> {
    const opening = await this.#mendedOpening(storage, replica, onFound)
    await using held = await this.#hold(storage)
    const { datastore } = held
    const found = await verifyPacks(datastore, options)
    const open = await unlockDatastore(datastore, this.#needs)
    const { damage: ofIndex, mended } = await checkedIndex(open, options.signal, onFound)
    // Those of earlier days as well: what could not be fetched then may be there now.
    const bad = new Set(found.damaged)
    for await (const { name } of datastore.place.list('suspects/')) bad.add(name.slice(-64))
    const broken = await brokenManifests(datastore)
    const seen = { ...found, mended: [...mended, ...ofIndex] }
    const names = [...[...bad].map(packName), ...broken.map(manifestName), ...open.index.damaged]
    const keys = await datastore.passedOver()
    const brokenNames = broken.map(printPoint)
    const said = await saidToBeHit(datastore)
    const inPacks = bad.size + said.length === 0 ? [] : await backupsHit(open, bad, options.signal)
    const hitByPacks = inPacks.filter((name) => !brokenNames.includes(name))
    // Who mended what hit them died before they could say so, or somebody else mended it.
    for (const name of said) if (!inPacks.includes(name)) await markHit(datastore, name, undefined)
    if (names.length + keys.length === 0) return { ...seen, hit: [], fetched: opening, lost: [] }
    const hit = [...brokenNames, ...hitByPacks]
    await onFound([
      ...[...bad].map((pack) => `pack ${pack} is damaged`),
      ...keys.map((name) => `'${name}' proves nothing`),
      ...hit.map((name) => `backup ${name} is hit`),
    ])
    const why = [...bad].map((pack) => `pack ${pack}`).join(', ')
    for (const name of hitByPacks) await markHit(datastore, name, why)
    if (replica === undefined) return { ...seen, hit, fetched: [], lost: names }
    await using copy = await this.#hold(replica)
    const { fetched, missing } = await refetch(datastore, copy.datastore, {
      keys: open.unlocked,
      signal: options.signal,
    })
    // A pack that was damaged then can be asked now what is in it.
    if (mended.length > 0) await checkedIndex(open, options.signal)
    const lostPacks = missing.filter((name) => name.startsWith('packs/')).map((name) => name.slice(-64))
    const left = lostPacks.length === 0 ? [] : await backupsHit(open, new Set(lostPacks))
    for (const name of hitByPacks) if (!left.includes(name)) await markHit(datastore, name, undefined)
    return { ...seen, hit, fetched: [...opening, ...fetched], lost: missing }
  }

  /** What opens it comes first, or nothing else can be looked at. @returns what was fetched */
  async #mendedOpening(
    storage: string,
    replica: string | undefined,
    onFound: (damage: readonly string[]) => Promise<void>,
  ): Promise<string[]> {
    try {
      await using held = await this.#hold(storage)
      await held.datastore.keyFile()
      return []
    } catch (cause) {
      if (replica === undefined || !(isFault(cause, 'damaged') || isFault(cause, 'missing'))) throw cause
      const { storage: storages, keys } = this.#needs
      await onFound([messageOf(cause)])
      await using copy = await this.#hold(replica)
      await using place = await placeOf(await storages.datastorePath(storage), this.#needs)
      return await mendOpening(place, copy.datastore, { deps: this.#needs, secret: await keys.own() })
    }
  }

  /** Makes, or brings up to date, a copy of a storage's datastore on another storage. @throws Fault `conflict` */
  async sync(from: string, to: string, options: SyncOptions): Promise<Synced> {
    const { storage } = this.#needs
    await using source = await this.#hold(from)
    const at = await storage.datastorePath(to)
    await using place = await placeOf(at, this.#needs)
    await place.prepare()
    if (typeof at === 'object' && at.kind === 's3' && at.retainSeconds !== undefined && !place.lock) {
      await place.retain?.(at.retainSeconds)
    }
    const { datastore } = source
    // Who cannot open it copies all of it.
    const keys =
      options.namespace === undefined ? undefined : await nodeKeysTo(datastore, this.#needs).catch(unlessLocked)
    const open = keys && (await datastore.opened(keys))
    return await syncDatastore(datastore, place, this.#needs, { ...options, open })
  }

  async #hold(storage: string): Promise<HeldDatastore> {
    return holdDatastore(await this.#needs.storage.datastorePath(storage), this.#needs)
  }
}

/** Names of backups of which a look said so. */
async function saidToBeHit(datastore: Datastore): Promise<string[]> {
  const names: string[] = []
  for await (const { name } of datastore.place.list('marks/')) {
    const point = pointOfPath(name.slice('marks/'.length))
    try {
      if (point && (await datastore.marks(point)).damage?.startsWith(foundByLook)) names.push(printPoint(point))
    } catch (fault) {
      // Marks that are damaged are protected until somebody lifts that.
      if (!isFault(fault, 'damaged')) throw fault
    }
  }
  return names
}

function unlessLocked(fault: unknown): undefined {
  if (!isFault(fault, 'unavailable') && !isFault(fault, 'missing')) throw fault
}
