/**
 * The store of the cluster's state: small JSON documents under keys such as `guests/qemu/100`.
 *
 * Every change of anything raises one store-wide `revision`. All waiting for others is done by
 * compare-and-put (`transact` with guards) or by leases; there are no locks that a dead process can keep.
 * One conformance suite holds for every driver (in memory, SQLite; etcd later).
 *
 * Who may run beside whom: any number of processes on one node may open the same SQLite store; a
 * transaction is atomic towards all of them, and a watcher hears of changes made by any of them.
 */
import type { Mark } from './mark.ts'

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined }

export interface Entry<T extends Json = Json> {
  readonly key: string
  readonly value: T
  /** Store-wide revision of the last change of this key. */
  readonly revision: number
}

/** What must hold for a transaction to happen. Revision 0: the key must not exist. */
export interface Guard {
  readonly key: string
  readonly revision: number
}

export type Write =
  | { readonly put: string; readonly value: Json; readonly lease?: LeaseId | undefined }
  | { readonly delete: string }

export interface Change {
  readonly key: string
  readonly revision: number
  /** Absent when the key was deleted. */
  readonly value?: Json
}

export type LeaseId = string

export interface Lease extends AsyncDisposable {
  readonly id: LeaseId
  /** Postpones the end by the lease's time to live. @throws Fault `missing` once it has ended. */
  readonly renew: () => Promise<void>
}

export interface Store extends AsyncDisposable {
  /** Touched by every change, whichever process makes it. */
  readonly mark: Mark
  readonly get: <T extends Json = Json>(key: string) => Promise<Entry<T> | undefined>
  /** Entries whose key begins with `prefix`, sorted by key. */
  readonly list: <T extends Json = Json>(
    prefix: string,
    options?: { readonly after?: string; readonly limit?: number },
  ) => Promise<Entry<T>[]>
  /**
   * All writes or none. Returns the new revision.
   * @throws Fault `conflict` naming the key when a guard does not hold.
   */
  readonly transact: (guards: readonly Guard[], writes: readonly Write[]) => Promise<number>
  /** The revision now; a watch from here misses nothing that follows. */
  readonly revision: () => Promise<number>
  /**
   * Changes below `prefix` after `since`, in order, until the signal fires. A watcher that falls behind
   * `limits.store.watchQueue` changes gets a fault of kind `exhausted` and must list again.
   */
  readonly watch: (prefix: string, since: number, signal: AbortSignal) => AsyncIterable<Change>
  /** Entries written with this lease vanish when it is neither renewed nor disposed of within `ttlMs`. */
  readonly lease: (ttlMs: number) => Promise<Lease>
}
