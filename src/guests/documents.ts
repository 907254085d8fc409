/**
 * Guests in the store: one document per guest under `guests/qemu/<vmid>` or `guests/lxc/<vmid>`. An id has one kind.
 *
 * A guest being made is *reserved*: its id is taken, it has no options, and only the task that reserved it
 * may write them. Writing them is one act that also ends the reservation, so a guest is either complete or
 * recognisably not. `createdBy` stays, so that the undo of a creation knows its own work from a guest that
 * was there before.
 *
 * Who may run beside whom: anybody; every write is compare-and-put and is tried again when it lost.
 */
import { Fault, isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import type { Entry, Json, Store } from '#store/store.ts'
import type { Filling, Options, Snapshot, Snapshots } from './config.ts'
import { folderOf, type GuestKind, guestKinds, isGuestKind, nounOf } from './kind.ts'

export interface GuestDocument {
  /** Said by its place in the store. */
  readonly kind: GuestKind
  readonly options: Options
  /** Task that is creating the guest. */
  readonly reservedBy?: string
  /** Task that created it. */
  readonly createdBy?: string
  readonly snapshots?: Snapshots
  readonly filling?: Filling
}

export interface ListedGuest {
  readonly vmid: Vmid
  readonly document: GuestDocument
  /** Of the store, when the document last changed. */
  readonly revision: number
}

/** What somebody is doing to it (`create`, `backup`), if anything: then nobody else may change it. */
export function lockOf({ options, reservedBy, filling }: GuestDocument): string | undefined {
  return reservedBy === undefined && filling === undefined ? options.lock : 'create'
}

const prefix = 'guests/'
const keyOf = (kind: GuestKind, vmid: Vmid) => `${prefix}${kind}/${vmid}`
const attempts = 20

export class GuestDocuments {
  readonly #store: Store
  readonly #node: string
  /** The last list, and the revision of the store it is not older than. */
  #listed: { readonly revision: number; readonly guests: readonly ListedGuest[] } = { revision: -1, guests: [] }

  constructor(store: Store, node: string) {
    this.#store = store
    this.#node = node
  }

  /** By id. A document that has not changed since the last question is the same object again. */
  async list(): Promise<readonly ListedGuest[]> {
    const revision = await this.#store.revision()
    if (this.#listed.revision === revision) return this.#listed.guests
    const known = new Map(this.#listed.guests.map((guest) => [guest.vmid, guest]))
    const guests = (await this.#store.list(prefix)).flatMap(({ key, value, revision: changed }): ListedGuest[] => {
      const [, kind = '', id] = key.split('/')
      if (!isGuestKind(kind)) return []
      const vmid = asVmid(id)
      const before = known.get(vmid)
      if (before?.revision === changed) return [before]
      return [{ vmid, revision: changed, document: asDocument(kind, value) }]
    })
    // What changed since the revision was read is listed once more the next time.
    this.#listed = { revision, guests: guests.toSorted((a, b) => a.vmid - b.vmid) }
    return this.#listed.guests
  }

  /** The guest of that id, of whatever kind. */
  async find(vmid: Vmid): Promise<GuestDocument | undefined> {
    return (await this.#entryOf(vmid))?.document
  }

  /**
   * @param kind a guest of another kind is not meant
   * @throws Fault `missing` in the words clients take for "gone"
   */
  async get(vmid: Vmid, kind?: GuestKind): Promise<GuestDocument> {
    const document = await this.find(vmid)
    if (!document || (kind !== undefined && document.kind !== kind)) throw this.#missing(vmid, kind)
    return document
  }

  async #entryOf(vmid: Vmid): Promise<{ readonly document: GuestDocument; readonly revision: number } | undefined> {
    for (const kind of guestKinds) {
      const entry: Entry | undefined = await this.#store.get(keyOf(kind, vmid))
      if (entry) return { document: asDocument(kind, entry.value), revision: entry.revision }
    }
    return undefined
  }

  /** Ids of all guests, of whatever kind. */
  async takenIds(): Promise<Set<number>> {
    const entries = await this.#store.list('guests/')
    return new Set(entries.map(({ key }) => Number(key.split('/')[2])))
  }

  /** @throws Fault `conflict` 'VM 100 already exists on node …' */
  async create(vmid: Vmid, document: GuestDocument): Promise<void> {
    const guards = guestKinds.map((kind) => ({ key: keyOf(kind, vmid), revision: 0 }))
    try {
      await this.#store.transact(guards, [{ put: keyOf(document.kind, vmid), value: asJson(document) }])
    } catch (cause) {
      if (isFault(cause, 'conflict')) await this.requireFree(vmid)
      throw cause
    }
  }

  /** @throws Fault `conflict` 'VM 100 already exists on node …' */
  async requireFree(vmid: Vmid): Promise<void> {
    const document = await this.find(vmid)
    if (document) throw new Fault('conflict', `${nounOf[document.kind]} ${vmid} already exists on node '${this.#node}'`)
  }

  /**
   * Replaces the document by what `change` makes of it; `undefined` deletes it. `change` may be called
   * several times, and leaves by throwing. What kind of guest it is stays.
   */
  async update(vmid: Vmid, change: (document: GuestDocument) => GuestDocument | undefined): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const entry = await this.#entryOf(vmid)
      if (!entry) throw this.#missing(vmid)
      const key = keyOf(entry.document.kind, vmid)
      const next = change(entry.document)
      try {
        const write = next === undefined ? { delete: key } : { put: key, value: asJson(next) }
        await this.#store.transact([{ key, revision: entry.revision }], [write])
        return
      } catch (fault) {
        if (!isFault(fault, 'conflict') || attempt >= attempts) throw fault
      }
    }
  }

  #missing(vmid: Vmid, kind: GuestKind = 'qemu'): Fault {
    const place = `nodes/${this.#node}/${folderOf[kind]}/${vmid}.conf`
    return new Fault('missing', `Configuration file '${place}' does not exist`)
  }
}

function asJson({ options, reservedBy, createdBy, snapshots = {}, filling }: Omit<GuestDocument, 'kind'>): Json {
  return {
    options,
    ...(Object.keys(snapshots).length === 0 ? {} : { snapshots }),
    ...(reservedBy === undefined ? {} : { reservedBy }),
    ...(createdBy === undefined ? {} : { createdBy }),
    ...(filling === undefined ? {} : { filling: { ...filling, drives: [...filling.drives] } }),
  }
}

/** @throws Fault `damaged` for a document that is none */
function asDocument(kind: GuestKind, value: Json): GuestDocument {
  const { options, reservedBy, createdBy, snapshots, filling } = fields(value)
  return {
    kind,
    options: asOptions(options),
    ...(snapshots === undefined ? {} : { snapshots: asSnapshots(snapshots) }),
    ...(typeof reservedBy === 'string' ? { reservedBy } : {}),
    ...(typeof createdBy === 'string' ? { createdBy } : {}),
    ...(filling === undefined ? {} : { filling: asFilling(filling) }),
  }
}

function asFilling(value: Json): Filling {
  const { from, by, drives, bytesPerSecond } = fields(value)
  if (typeof from !== 'string' || typeof by !== 'string' || !Array.isArray(drives)) {
    throw new Fault('damaged', 'a guest in the store is filled from nobody knows where')
  }
  return {
    from: asVolumeId(from),
    by,
    drives: drives.map(String),
    bytesPerSecond: Number(bytesPerSecond),
  }
}

function asOptions(value: Json | undefined): Options {
  const entries = Object.entries(fields(value ?? null))
  if (!entries.every((entry): entry is [string, string] => typeof entry[1] === 'string')) {
    throw new Fault('damaged', 'a guest in the store has options that are no text')
  }
  return Object.fromEntries(entries)
}

function asSnapshots(value: Json): Snapshots {
  return Object.fromEntries(
    Object.entries(fields(value)).map(([name, one]): [string, Snapshot] => {
      const { options, takenAt, description, memory } = fields(one ?? null)
      const kept = memory === undefined ? undefined : fields(memory)
      return [
        name,
        {
          options: asOptions(options),
          takenAt: Number(takenAt),
          description: typeof description === 'string' ? description : '',
          ...(kept
            ? {
                memory: {
                  options: asOptions(kept.options),
                  machine: typeof kept.machine === 'string' ? kept.machine : '',
                  ...(typeof kept.volume === 'string' ? { volume: asVolumeId(kept.volume) } : {}),
                },
              }
            : {}),
        },
      ]
    }),
  )
}

function fields(value: Json): Readonly<Record<string, Json | undefined>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Fault('damaged', 'a guest in the store is no document')
  }
  return value as Readonly<Record<string, Json | undefined>>
}
