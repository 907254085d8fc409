/**
 * Where a datastore lies: a folder, an object store, another Hakobune. Objects are put whole and never changed, so all are
 * alike.
 *
 * `put` never replaces: a name that is taken is left as it is, because the name of what is immutable says what is in it.
 */
import { Fault, isFault } from '#base/fault.ts'

export interface PlacedObject {
  readonly name: string
  readonly sizeBytes: number
  /** Another one whenever the name stands for something else; where the place can tell. */
  readonly version?: string
}

export interface Room {
  readonly totalBytes: number
  readonly usedBytes: number
  readonly availableBytes: number
}

/** Whoever opened it disposes of it. */
export interface Place extends AsyncDisposable {
  /** For people. */
  readonly label: string
  /** A local folder in which to write what is to be put. */
  readonly stagingDir: string
  /** Makes ready what a datastore needs that is to be made here. */
  readonly prepare: () => Promise<void>
  /** Moves a synced local file to its place; when this returns, it survives power loss. False when the name is taken. */
  readonly putFile: (name: string, path: string) => Promise<boolean>
  /** As `putFile`, in the place of what has the name: a whole copy for a damaged one. */
  readonly replaceFile: (name: string, path: string) => Promise<void>
  /** A small object. False when the name is taken. */
  readonly put: (name: string, content: Uint8Array) => Promise<boolean>
  /** As `put`, in the place of what has the name. */
  readonly replace: (name: string, content: Uint8Array) => Promise<void>
  /** The whole of a small object, or nothing. @throws Fault `too-large` */
  readonly get: (name: string, maximumBytes: number) => Promise<Buffer | undefined>
  /**
   * @param room where it may be put, if it is large enough
   * @throws Fault `missing`; `damaged` when the object ends before
   */
  readonly read: (name: string, offset: number, length: number, room?: Buffer) => Promise<Buffer>
  /** Of parts of the index, where copies of them are read: whether the place still has them whole. @throws Fault `missing`, `damaged` */
  readonly requireWhole?: (name: string) => Promise<void>
  /** To say what of packs will be read, where that makes fewer requests of it. */
  readonly plan?: () => ReadPlan
  /** Of maps and trees, which are small: as much is read at once as costs no more than one of them. */
  readonly nearBytes?: number
  /** @throws Fault `missing` */
  readonly sizeOf: (name: string) => Promise<number>
  /** Every object whose name begins with a folder's (`packs/`), in no order that is promised. */
  readonly list: (folder: string) => AsyncIterable<PlacedObject>
  /** False when it was not there. @throws Fault `conflict` while it is locked */
  readonly remove: (name: string) => Promise<boolean>
  /** Puts a mark there that goes by itself when this process dies, where the place can do that. */
  readonly hold?: (name: string) => Promise<Hold>
  /** Whether such a mark's holder lives; undefined where nobody can tell, as when there is no mark. */
  readonly isHeld?: (name: string) => boolean | undefined
  /** An id for a lease of ours, where we have to prove later that it is. */
  readonly leaseId?: () => string
  /** Room set aside for the collector of garbage, where places can be full. */
  readonly reserve?: {
    readonly keep: (sizeBytes: number) => Promise<void>
    readonly free: () => Promise<boolean>
  }
  /** Removes a mark nobody holds, unless it turns out to be wanted. */
  readonly removeFree?: (name: string, isWanted: () => Promise<boolean>) => Promise<void>
  /** Keeps what backups need from being removed, by anybody, before a date. */
  readonly lock?: PlaceLock | undefined
  /** From now on what backups need is kept that long, in seconds. @throws Fault `invalid` where that cannot be */
  readonly retain?: (forSeconds: number) => Promise<void>
  /** Whether `retain` can be kept here. */
  readonly canRetain?: boolean
  /** How full it is, where that can be asked. */
  readonly room?: () => Promise<Room>
  /** Tries to do away with an object, by all we may do here. */
  readonly canary?: (() => Promise<CanaryAttempt[]>) | undefined
  /** We may add here, but not remove or replace: others tidy up. */
  readonly addsOnly?: boolean
}

/** Whoever made it disposes of it; what was not read until then is forgotten. */
export interface ReadPlan extends Disposable {
  /** A part that will be read as it is here, after those that were added before. */
  readonly add: (name: string, offset: number, length: number) => void
}

export interface Hold {
  readonly release: () => void
}

/** Times are seconds since 1970. */
export interface PlaceLock {
  /** How long a backup is kept from its making on. */
  readonly retainSeconds: number
  /** Until when nobody can remove an object; nothing when anybody may at once. */
  readonly until: (name: string) => Promise<number | undefined>
  /** Never makes it shorter. */
  readonly extend: (name: string, until: number) => Promise<void>
}

/** One way to lose a backup, and whether it was barred. */
export interface CanaryAttempt {
  readonly attempt: string
  readonly refused: boolean
  readonly until?: string
}

/** Names are ours, but places are open to many hands: nothing outside is ever touched. */
const nameShape = /^(?!.*(?:^|\/)\.{1,2}(?:\/|$))[A-Za-z0-9][A-Za-z0-9._:/-]{0,400}$/

export function isName(name: string): boolean {
  return nameShape.test(name)
}

export function checkName(name: string): string {
  if (!nameShape.test(name)) throw new Error(`'${name}' cannot be the name of an object`)
  return name
}

export async function isThere(place: Pick<Place, 'sizeOf'>, name: string): Promise<boolean> {
  return place.sizeOf(name).then(
    () => true,
    (fault: unknown) => {
      if (isFault(fault, 'missing')) return false
      throw fault
    },
  )
}

/** A fault of whoever removes what is locked. */
export function lockedFault(what: string, until: number): Fault {
  return new Fault('conflict', `${what} is locked until ${printSecond(until)}`, {
    remedy: 'Nobody can remove it before; then it can go.',
  })
}

/** `2026-11-20T10:00:00Z` */
export function printSecond(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`
}
