/**
 * A tree of files as archives are made of it: one that is kept in the datastore, or one that is on a disk somewhere and
 * looked at by others.
 */
import type { Attribute } from '#host/files/attribute-calls.ts'
import type { EntryKind } from './record.ts'

export interface ReadEntry {
  /** Each character a byte; '' is the root. */
  readonly path: string
  readonly name: string
  readonly kind: EntryKind
  readonly mode: number
  /** As inside the container. */
  readonly uid: number
  readonly gid: number
  /** Of a file, holes included. */
  readonly sizeBytes: number
  readonly modified: { readonly seconds: number; readonly nanoseconds: number }
  /** Of a symbolic link what it says; of a hard link the path of the first name. */
  readonly target?: string
  readonly device?: { readonly major: number; readonly minor: number }
}

export interface ReadTree<E extends ReadEntry = ReadEntry> {
  /** @throws Fault `missing` */
  readonly entry: (path: string) => Promise<E>
  /** What is in a folder. */
  readonly list: (path: string) => AsyncIterable<E>
  /** The entry and, of a folder, all below it; each folder before what is in it. */
  readonly entries: (path: string) => AsyncIterable<E>
  /** As many bytes as it has. */
  readonly content: (entry: E) => AsyncIterable<Buffer>
  readonly attributes: (entry: E) => Promise<readonly Attribute[]>
  /** Where a file has content, in order. */
  readonly ranges: (entry: E) => AsyncIterable<{ readonly offset: number; readonly length: number }>
  /** The content of those. */
  readonly parts: (entry: E) => AsyncIterable<{ readonly bytes: Buffer }>
}

export interface ReadTrees<E extends ReadEntry> {
  readonly tree: (name: string) => ReadTree<E>
}
