/**
 * Backups by volume id: `local:backup/vm/100/2026-11-20T10:00:00Z` is a backup in the datastore of the
 * storage `local`. Knows storages only as places of datastores, and guests only as numbers.
 *
 * Nothing is kept open between calls, so any number of processes may use one datastore.
 */
import { type Clock, seconds } from '#base/clock.ts'
import { Fault, isFault, missing } from '#base/fault.ts'
import { asVmid, asVolumeId, splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { Host } from '#host/host.ts'
import { type BackupId, type BackupType, parseBackupId, printBackupId } from '#datastore/backup-id.ts'
import { type BackupInfo, type Datastore, openDatastore } from './datastore.ts'
import { dataBytesOf, type Manifest } from './manifest.ts'
import type { BackupReader } from './reader.ts'
import type { SweepResult } from './sweep.ts'
import type { VerifiedBackup, VerifyOptions } from './verify.ts'
import { type VerifiedDatastore, verifyDatastore } from './verify-datastore.ts'
import type { BackupWriter } from './writer.ts'

export interface BackupNeeds {
  readonly storage: { readonly datastorePath: (name: string) => Promise<string> }
  readonly host: Host
  readonly clock: Clock
  readonly log: Log
  readonly random: Random
  /** The guest that still lacks what is in the backup, and so needs it. */
  readonly neededBy?: (volid: VolumeId) => Promise<Vmid | undefined>
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
  /** Why it cannot be read, or what the last check found. */
  readonly damage?: string | undefined
  readonly manifest?: Manifest | undefined
}

export interface BegunBackup {
  readonly volid: VolumeId
  readonly writer: BackupWriter
}

export class BackupService {
  readonly #needs: BackupNeeds

  constructor(needs: BackupNeeds) {
    this.#needs = needs
  }

  /** Starts a backup of a guest under the time of now. @throws Fault `exhausted`, `invalid` when the storage holds no backups */
  async begin(
    storage: string,
    { vmid, type = 'vm' }: { readonly vmid: Vmid; readonly type?: GuestBackupType },
  ): Promise<BegunBackup> {
    const datastore = await this.#datastore(storage, { create: true })
    let id: BackupId = { type, id: String(vmid), time: seconds(this.#needs.clock) }
    // Two within one second, or a clock that was set back.
    while (await datastore.exists(id)) id = { ...id, time: id.time + 1 }
    return { volid: volidOf(storage, id), writer: await datastore.begin(id) }
  }

  /** Backups of guests on a storage, oldest first; of one id or type where that is given. Damaged ones are listed as such. */
  async list({ storage, vmid, type }: BackupFilter): Promise<ListedBackup[]> {
    const path = await this.#needs.storage.datastorePath(storage)
    try {
      const datastore = await openDatastore(path, this.#needs, { sweeps: false })
      const infos = await datastore.list({
        ...(type === undefined ? {} : { type }),
        ...(vmid === undefined ? {} : { id: String(vmid) }),
      })
      return infos.flatMap((info) => listed(storage, info) ?? [])
    } catch (cause) {
      // A storage that never held a backup has no datastore yet.
      if (isFault(cause, 'missing')) return []
      throw cause
    }
  }

  /** The caller disposes of the reader. @throws Fault `missing`, `damaged` naming the file */
  async open(volid: VolumeId): Promise<BackupReader> {
    return (await this.#find(volid)).datastore.open(parseVolid(volid).id)
  }

  /** @throws Fault `conflict` when it is protected or needed, `missing` */
  async remove(volid: VolumeId): Promise<void> {
    const vmid = await this.#needs.neededBy?.(volid)
    if (vmid !== undefined) {
      throw new Fault(
        'conflict',
        `backup '${volid}' is needed by VM ${vmid}, which is restored from it while it runs`,
        {
          remedy: 'Wait until its disks are whole, or destroy that VM.',
        },
      )
    }
    const { datastore, id } = await this.#find(volid)
    await datastore.remove(id)
  }

  /** Changes notes or protection; what is undefined stays, empty notes are removed. @throws Fault `missing` */
  async annotate(
    volid: VolumeId,
    change: { readonly notes?: string | undefined; readonly protected?: boolean | undefined },
  ): Promise<void> {
    const { datastore, id } = await this.#find(volid)
    const given = Object.entries(change).filter(([, value]) => value !== undefined)
    await datastore.mark(id, Object.fromEntries(given))
  }

  /** Checks every byte a restore would need, and keeps what was found. @throws Fault `damaged` naming each damaged chunk */
  async verify(volid: VolumeId, options: VerifyOptions = {}): Promise<VerifiedBackup> {
    const { datastore, id } = await this.#find(volid)
    const verified = seconds(this.#needs.clock)
    try {
      await using reader = await datastore.open(id)
      const result = await reader.verify(options)
      await datastore.mark(id, { verified, damage: undefined })
      return result
    } catch (cause) {
      // Whoever looks at the list next must see it, not only who asked for this check.
      if (isFault(cause, 'damaged')) await this.noteDamage(volid, cause.message)
      throw cause
    }
  }

  /** Keeps what a full check found, until a later one finds none. */
  async noteDamage(volid: VolumeId, damage: string): Promise<void> {
    const { datastore, id } = await this.#find(volid)
    await datastore.mark(id, { verified: seconds(this.#needs.clock), damage: damage.slice(0, 1024) })
  }

  /** Checks every file of a storage's datastore. @throws Fault `damaged` naming what, and the backups hit */
  async verifyAll(storage: string, options: VerifyOptions = {}): Promise<VerifiedDatastore> {
    return verifyDatastore(await this.#datastore(storage), options)
  }

  /** Gives back the space of interrupted writers and removed backups. */
  async sweep(storage: string): Promise<SweepResult> {
    return (await this.#datastore(storage)).sweep()
  }

  /** Everything known about one backup. @throws Fault `missing`, `damaged` */
  async describe(volid: VolumeId): Promise<ListedBackup & { readonly manifest: Manifest }> {
    const { id, storage } = parseVolid(volid)
    const info = (await this.list({ storage, vmid: Number(id.id) })).find((one) => one.volid === volid)
    if (!info) throw missing('volume', volid)
    const { manifest, damage = 'it has no manifest' } = info
    if (!manifest) throw new Fault('damaged', damage)
    return { ...info, manifest }
  }

  async #find(volid: VolumeId): Promise<{ datastore: Datastore; id: BackupId }> {
    const { storage, id } = parseVolid(volid)
    try {
      return { datastore: await this.#datastore(storage), id }
    } catch (cause) {
      throw isFault(cause, 'missing') && cause.message.startsWith('datastore')
        ? missing('volume', volid, { cause })
        : cause
    }
  }

  async #datastore(storage: string, options: { create?: boolean } = {}): Promise<Datastore> {
    return openDatastore(await this.#needs.storage.datastorePath(storage), this.#needs, options)
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
function listed(storage: string, { id, manifest, marks, damage = marks.damage }: BackupInfo): ListedBackup | undefined {
  if (id.type === 'host' || !/^[1-9]\d{2,8}$/.test(id.id)) return undefined
  const notes = marks.notes === '' ? undefined : marks.notes
  return {
    volid: volidOf(storage, id),
    type: id.type,
    vmid: asVmid(id.id),
    ctime: id.time,
    sizeBytes: manifest ? dataBytesOf(manifest) : 0,
    ...(notes === undefined ? {} : { notes }),
    ...(marks.protected ? { protected: true } : {}),
    ...(marks.verified === undefined ? {} : { verified: marks.verified }),
    ...(damage === undefined ? {} : { damage }),
    ...(manifest ? { manifest } : {}),
  }
}
