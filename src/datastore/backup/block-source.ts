/**
 * What a backup reads a disk from: an image file, or a running guest's block layer over NBD.
 *
 * The backup engine knows no guests and no storages; this is all it asks. Extents are a hint about
 * holes: they may call empty space data (the engine looks for zeros itself), never the other way round.
 */
export interface Extent {
  readonly offset: number
  readonly length: number
  /** Reads as zeros for certain. */
  readonly isZero: boolean
  /** As it was when a record of changes began. Absent: nobody knows. */
  readonly isUnchanged?: boolean
}

export interface BlockSource extends AsyncDisposable {
  readonly sizeBytes: number
  /** All of the disk, in order, without gaps or overlap. */
  readonly extents: () => AsyncIterable<Extent>
  /** Fills `into` with the bytes from `offset`; several reads may be under way at once. */
  readonly read: (offset: number, into: Uint8Array) => Promise<void>
}
