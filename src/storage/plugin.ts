/**
 * What a storage driver is: one value (`storagePlugin({ … })`) that says what it can hold and opens a
 * `StorageDriver` for one configured storage.
 *
 * What a driver cannot do is absent: content it does not hold is not in `content` and the matching part
 * (`images`, `files`, `datastore`) is not there; no method exists to throw "not supported". A driver
 * knows nothing of users, guests or the store. `conformance.ts` holds for every driver.
 *
 * Every change is atomic towards readers and towards `kill -9`: a volume is there with its full content
 * or it is not there; what a killed process leaves is found and removed by `sweep`.
 */
import type { RemoteDatastore } from '#base/datastore-at.ts'
import { invalid } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { checkProperties } from '#base/schema/check.ts'
import type { Properties, StaticProperties } from '#base/schema/schema.ts'
import type { Host } from '#host/host.ts'
import type { ContentType, FileContent, FileName, ImageFormat, ImageName, TreeName, VolumeName } from './volume.ts'

export interface StorageFeatures {
  /** Formats of images, the preferred one first. */
  readonly formats: readonly ImageFormat[]
  /** A new image takes (nearly) no space until it is written to, and reads as zeros. */
  readonly sparse: boolean
  /** All nodes see the same volumes. */
  readonly shared: boolean
  /** Formats whose images hold snapshots; empty when there are none. */
  readonly snapshots: readonly ImageFormat[]
  /** Those of them that the storage takes and drops itself while somebody has the image open and does not write. */
  readonly openSnapshots: readonly ImageFormat[]
  /** Disks of templates can be the base of others, which hold only what differs. */
  readonly linkedClones: boolean
  /** What it does with containers' files, beyond keeping them. */
  readonly trees: TreeFeatures
}

export interface TreeFeatures {
  readonly snapshots: boolean
  /** Trees of templates can be the base of others, which hold only what differs. */
  readonly links: boolean
  /** A tree can be held to a size. */
  readonly limits: boolean
}

export interface Space {
  readonly totalBytes: number
  readonly usedBytes: number
  readonly availableBytes: number
}

/** What a driver knows of one volume. */
export interface VolumeFacts<Name extends VolumeName = VolumeName> {
  readonly name: Name
  readonly sizeBytes: number
  readonly usedBytes: number
  /** Seconds since 1970. */
  readonly ctime: number
  /** Of archives: what people noted, and whether it may be removed. */
  readonly notes?: string
  readonly protected?: boolean
}

export interface Part<Name extends VolumeName> {
  /** @throws Fault `missing` */
  readonly describe: (name: Name) => Promise<VolumeFacts<Name>>
  /** Where programs find it, there or not. */
  readonly path: (name: Name) => string
  /** Gone afterwards; false when it was not there. */
  readonly remove: (name: Name) => Promise<boolean>
  /** Takes the volume out of sight under a mark of the caller's. Repeating it is harmless. @throws Fault `missing` */
  readonly setAside: (name: Name, mark: string) => Promise<void>
  /** Undoes `setAside`; harmless when it did not happen. @throws Fault `conflict` when the name was taken meanwhile */
  readonly bringBack: (name: Name, mark: string) => Promise<void>
  /** Destroys what was set aside; harmless when there is nothing. */
  readonly erase: (name: Name, mark: string) => Promise<void>
}

export interface NewVolume {
  readonly sizeBytes: number
  /** Of a qcow2 image: nothing at all is in its file, and whoever opens it first lays it out. */
  readonly isBlank?: boolean | undefined
  /** Writes the content before the volume is visible, to a path that already has format and size. */
  readonly fill?: (path: string) => Promise<void>
}

/**
 * Gives a volume without snapshots another name, also that of a volume of another guest. Repeating is harmless.
 * @throws Fault `missing`; `conflict` when that name is taken
 */
export type Rename<Name extends VolumeName> = (name: Name, other: Name) => Promise<void>

export interface ImagePart extends Part<ImageName> {
  /** All images, or those of one guest, sorted by name. */
  readonly list: (vmid?: Vmid) => Promise<VolumeFacts<ImageName>[]>
  /** @throws Fault `conflict` when the name is taken, also by somebody who came first at the same moment */
  readonly create: (name: ImageName, volume: NewVolume) => Promise<void>
  /** As `create`, in the place of an image of that name if there is one; who has that open keeps it. In one act. */
  readonly replace: (name: ImageName, volume: NewVolume) => Promise<void>
  readonly rename: Rename<ImageName>
  /** Only ever to more. */
  readonly grow: (name: ImageName, sizeBytes: number) => Promise<void>
  /** Makes the image readable and writable by this uid alone. */
  readonly giveTo: (name: ImageName, uid: number) => Promise<void>
  readonly snapshots?: ImageSnapshots
  readonly links?: ImageLinks
}

/** One file of an image that consists of several. */
export interface Layer {
  readonly path: string
  readonly format: ImageFormat
}

/**
 * Snapshots of images nobody has open, by tags. Repeating a verb is harmless, and so is one that has nothing to do,
 * but for `rollBack`, which needs its snapshot.
 */
export interface ImageSnapshots {
  readonly list: (name: ImageName) => Promise<string[]>
  readonly take: (name: ImageName, tag: string) => Promise<void>
  /** Content and size are again what they were; later snapshots stay. @throws Fault `missing` */
  readonly rollBack: (name: ImageName, tag: string) => Promise<void>
  readonly drop: (name: ImageName, tag: string) => Promise<void>
  /** The image as the snapshot holds it: a file that can only be read. Undefined for formats that keep it inside. */
  readonly pathOf?: (name: ImageName, tag: string) => string | undefined
}

/** Images that hold only what differs from a template's disk. */
export interface ImageLinks {
  /** What a disk linked to that base is called: with its parent where it refers to it, in a format that can. */
  readonly nameOf: (name: ImageName, base: ImageName) => ImageName
  /** A new image with the content of `parent`, under a name from `nameOf`. @throws Fault `conflict` when the name is taken */
  readonly link: (name: ImageName, parent: ImageName) => Promise<void>
  /**
   * The files that make up the image, itself first. Every one has been found to refer to exactly the next.
   * @throws Fault `invalid` when one refers to anything else
   */
  readonly layers: (name: ImageName) => Promise<[Layer, ...Layer[]]>
  /** Turns a disk into one that is only read, under its `base-` name, and back. Repeating is harmless. */
  readonly freeze: (name: ImageName) => Promise<ImageName>
  readonly unfreeze: (base: ImageName) => Promise<ImageName>
}

/** Containers' files, each tree in a folder. */
export interface TreePart extends Part<TreeName> {
  /** All trees, or those of one guest, sorted by name. A size of 0 is no limit. */
  readonly list: (vmid?: Vmid) => Promise<VolumeFacts<TreeName>[]>
  /**
   * Makes the folder; `fill` puts the content into it before it is visible.
   * @param limitBytes only where there is `limit`; holds while `fill` writes, too
   * @throws Fault `conflict` when the name is taken, also by somebody who came first at the same moment
   */
  readonly create: (name: TreeName, fill: (path: string) => Promise<void>, limitBytes?: number) => Promise<void>
  readonly rename: Rename<TreeName>
  /** Holds the tree to a size from now on, used or not. */
  readonly limit?: (name: TreeName, sizeBytes: number) => Promise<void>
  readonly snapshots?: TreeSnapshots
  readonly links?: TreeLinks
  readonly copies?: TreeCopies
}

/** Snapshots of trees, in use or not, by tags, with the rules of those of images. What uses a tree is ended before it is rolled back. */
export interface TreeSnapshots {
  readonly list: (name: TreeName) => Promise<string[]>
  readonly take: (name: TreeName, tag: string) => Promise<void>
  /** @throws Fault `missing` */
  readonly rollBack: (name: TreeName, tag: string) => Promise<void>
  readonly drop: (name: TreeName, tag: string) => Promise<void>
  /** The folder with the content of the snapshot, there or not, which can only be read. */
  readonly pathOf: (name: TreeName, tag: string) => string
}

/** How a tree is shown: as the folder it is, or as layers of which the upper one takes what is written. */
export type TreeLayers =
  | { readonly kind: 'folder'; readonly path: string }
  | {
      readonly kind: 'overlay'
      readonly upper: string
      /** For the kernel's own use, beside `upper`. */
      readonly work: string
      /** The nearest first; the last one is whole. */
      readonly lowers: readonly [string, ...string[]]
    }

/** Trees that hold only what differs from a template's; the rules are those of images. */
export interface TreeLinks {
  readonly nameOf: (name: TreeName, base: TreeName) => TreeName
  readonly link: (name: TreeName, parent: TreeName) => Promise<void>
  readonly freeze: (name: TreeName) => Promise<TreeName>
  readonly unfreeze: (base: TreeName) => Promise<TreeName>
  /** @throws Fault `missing`; `denied` when what it is based on is not as a template's tree must be */
  readonly layersOf: (name: TreeName) => Promise<TreeLayers>
}

/** Trees copied by the file system itself, with everything that is said of their files. */
export interface TreeCopies {
  /** Whose `send` and `receive` fit together: `btrfs`. */
  readonly kind: string
  /** A new tree with the content of another one here, or of its snapshot. Takes no time and, until written to, no room. */
  readonly copy: (name: TreeName, source: TreeSource, limitBytes?: number) => Promise<void>
  /** The stream ends when all of it is there, and throws when it cannot go on. */
  readonly send: (source: TreeSource, signal?: AbortSignal) => AsyncIterable<Uint8Array>
  /** Makes a tree of a stream; it is seen when it is whole. @throws what the stream throws, Fault `conflict` when the name is taken */
  readonly receive: (name: TreeName, stream: AsyncIterable<Uint8Array>, how: ReceivedTree) => Promise<void>
}

export interface TreeSource {
  readonly name: TreeName
  readonly tag?: string | undefined
}

export interface ReceivedTree {
  readonly limitBytes?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface FilePart extends Part<FileName> {
  readonly list: (content: FileContent | 'backup') => Promise<VolumeFacts<FileName>[]>
  /**
   * Writes content out of sight, under a mark of the caller's, and returns what `withdraw` knows it by.
   * Nothing remains when `fill` throws.
   */
  readonly stage: (name: FileName, mark: string, fill: (path: string) => Promise<void>) => Promise<string>
  /**
   * Makes staged content visible in one act. What had that name is kept out of sight under the mark until
   * `erase` or `withdraw`. @throws Fault `missing` when nothing is staged
   */
  readonly publish: (name: FileName, mark: string) => Promise<void>
  /** Undoes `publish`: what had the name before has it again. Harmless when it did not happen. */
  readonly withdraw: (name: FileName, mark: string, identity: string) => Promise<void>
  /** Removes staged content; harmless when there is none. */
  readonly discard: (name: FileName, mark: string) => Promise<void>
  /** Notes and protection of an archive; what is undefined stays. @throws Fault `missing` */
  readonly annotate: (
    name: FileName,
    change: { readonly notes?: string | undefined; readonly protected?: boolean | undefined },
  ) => Promise<void>
}

export interface StorageDriver {
  /** Makes folders and the like when a storage is set up. @throws Fault `unavailable` */
  readonly prepare: () => Promise<void>
  /** @throws Fault `unavailable` saying what is not there (a mount, a folder) */
  readonly requireActive: () => Promise<void>
  readonly space: () => Promise<Space>
  /** The same text for every storage that is the same place, seen from one node. */
  readonly identity: () => Promise<string>
  /** Removes what killed processes left; returns what it removed. */
  readonly sweep: () => Promise<string[]>
  readonly images?: ImagePart
  readonly trees?: TreePart
  readonly files?: FilePart
  /** Folder of the backup engine, made when missing. */
  readonly datastore?: () => Promise<string>
  /** Where the datastore is that lies elsewhere. @throws Fault `invalid` when a secret is missing */
  readonly remote?: (secrets: Secrets) => RemoteDatastore
}

/** Values of those options of a storage that are never shown, by option. */
export type Secrets = Readonly<Record<string, string>>

/** What a driver may use. */
export interface DriverHands {
  readonly host: Host
  /** Name of the storage, for messages. */
  readonly storage: string
}

export interface PluginDefinition<P extends Properties> {
  readonly type: string
  /** Everything such a storage may be configured to hold. */
  readonly content: readonly ContentType[]
  /** What it holds when nobody says. */
  readonly defaultContent: readonly ContentType[]
  readonly features: StorageFeatures
  /** Options of such a storage beside those every storage has. Secret ones are optional: they are kept elsewhere. */
  readonly config: P
  readonly open: (options: StaticProperties<P>, hands: DriverHands) => StorageDriver
}

export type StoragePlugin<P extends Properties = Properties> = Omit<PluginDefinition<P>, 'open'> & {
  /** @throws Fault `invalid` naming each wrong option */
  readonly open: (options: Readonly<Record<string, unknown>>, hands: DriverHands) => StorageDriver
}

export function storagePlugin<const P extends Properties>(definition: PluginDefinition<P>): StoragePlugin<P> {
  return {
    ...definition,
    open: (options, hands) => {
      const checked = checkProperties(definition.config, options)
      if (!checked.ok) throw invalid(checked.errors)
      return definition.open(checked.values, hands)
    },
  }
}
