/**
 * Where a datastore lies: a folder, or an object store. Objects are put whole and never changed, so both are alike.
 *
 * `put` never replaces: a name that is taken is left as it is, because the name of what is immutable says what is in it.
 */
export interface PlacedObject {
  readonly name: string
  readonly sizeBytes: number
  /** Another one whenever the name stands for something else; where the place can tell. */
  readonly version?: string
}

/** Whoever opened it disposes of it. */
export interface Place extends AsyncDisposable {
  /** For people. */
  readonly label: string
  /** A local folder in which to write what is to be put. */
  readonly stagingDir: string
  /** Moves a synced local file to its place; when this returns, it survives power loss. False when the name is taken. */
  readonly putFile: (name: string, path: string) => Promise<boolean>
  /** A small object. False when the name is taken. */
  readonly put: (name: string, content: Uint8Array) => Promise<boolean>
  /** As `put`, in the place of what has the name. */
  readonly replace: (name: string, content: Uint8Array) => Promise<void>
  /** The whole of a small object, or nothing. @throws Fault `too-large` */
  readonly get: (name: string, maximumBytes: number) => Promise<Buffer | undefined>
  /** @throws Fault `missing`; `damaged` when the object ends before */
  readonly read: (name: string, offset: number, length: number) => Promise<Buffer>
  /** @throws Fault `missing` */
  readonly sizeOf: (name: string) => Promise<number>
  /** Every object whose name begins with a folder's (`packs/`), in no order that is promised. */
  readonly list: (folder: string) => AsyncIterable<PlacedObject>
  /** False when it was not there. */
  readonly remove: (name: string) => Promise<boolean>
  /** Puts a mark there that goes by itself when this process dies, where the place can do that. */
  readonly hold?: (name: string) => Promise<Hold>
  /** Whether such a mark's holder lives; undefined where nobody can tell. */
  readonly isHeld?: (name: string) => boolean
  /** Room set aside for the collector of garbage, where places can be full. */
  readonly reserve?: {
    readonly keep: (sizeBytes: number) => Promise<void>
    readonly free: () => Promise<boolean>
  }
  /** Removes a mark nobody holds, unless it turns out to be wanted. */
  readonly removeFree?: (name: string, isWanted: () => Promise<boolean>) => Promise<void>
}

export interface Hold {
  readonly release: () => void
}
