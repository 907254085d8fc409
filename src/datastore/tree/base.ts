/**
 * The catalogue of an earlier backup, or of a first pass beside the running guest, gone through in step with a walk:
 * both are in the same order, so one piece of it is held at a time.
 */
import type { Piece } from './piece.ts'
import { at, extentsAt, folderAt, folderKey, identityBytes, kindAt, nameAt } from './record.ts'
import type { SourceEntry } from './source.ts'

export interface BasePiece {
  readonly piece: Piece
  /** Id of a chunk it names. Nothing when that cannot be relied upon to be there. */
  readonly chunk: (number: number) => Buffer | undefined
}

/** Where the record of an entry stands, `absent`, or `unread` when `load` has to be called first. */
export type Sought = number | 'absent' | 'unread'

export class Base {
  /** Of an earlier backup whose ids mean something else, entries with ids in their attributes are not taken over. */
  readonly hasSameIds: boolean
  readonly #pieces: AsyncIterator<BasePiece>
  #current: BasePiece | undefined
  #isAtEnd = false
  #at = 0
  #folder = ''
  #wanted = ''

  constructor(pieces: AsyncIterator<BasePiece>, hasSameIds: boolean) {
    this.#pieces = pieces
    this.hasSameIds = hasSameIds
  }

  /** The piece the last entry found stands in. */
  get current(): BasePiece | undefined {
    return this.#current
  }

  /** Folders come in their order. */
  enter(folder: string): void {
    this.#wanted = folderKey(folder)
  }

  /** Names come in their order. */
  seek(name: string): Sought {
    if (this.#isAtEnd) return 'absent'
    const bytes = this.#current?.piece.bytes
    if (bytes === undefined) return 'unread'
    while (this.#at < bytes.length) {
      // Without a folder of its own in front where an entry went on into this piece.
      if (this.#folder > this.#wanted) return 'absent'
      const kind = kindAt(bytes, this.#at)
      if (kind === 'folder') this.#folder = folderKey(folderAt(bytes, this.#at))
      else if (kind !== 'more' && kind !== 'attributes' && this.#folder === this.#wanted) {
        const found = nameAt(bytes, this.#at)
        if (found === name) return this.#at
        if (found > name) return 'absent'
      }
      this.#at += bytes.readUInt32LE(this.#at)
    }
    return 'unread'
  }

  /** Whether the entry is as the record there says, and what stands apart of its attributes is not lost. */
  isUnchanged(from: number, { kind, identity }: SourceEntry): boolean {
    if (this.#current === undefined) return false
    const { piece, chunk } = this.#current
    const { bytes } = piece
    if (kindAt(bytes, from) !== kind) return false
    const apart = attributesApart(bytes, from)
    const hasAttributes = apart !== undefined || bytes.readUInt32LE(from + at.attributeBytes) > 0
    if (!this.hasSameIds && hasAttributes) return false
    if (bytes.readUInt32LE(from + at.inode) === 0 && bytes.readUInt32LE(from + at.inode + 4) === 0) return false
    if (identity.compare(bytes, from + at.size, from + at.size + identityBytes) !== 0) return false
    // Attributes that are lost can only be stored anew together with their entry.
    return apart === undefined || extentsAt(bytes, apart).every((extent) => chunk(extent.chunk) !== undefined)
  }

  /** The record behind the one at hand, when it belongs to the same entry. */
  following(): Sought {
    const bytes = this.#current?.piece.bytes
    if (this.#isAtEnd || bytes === undefined) return 'absent'
    this.#at += bytes.readUInt32LE(this.#at)
    return this.#more(bytes)
  }

  /** After `load`: as `following`, from the beginning of the next piece. */
  continued(): Sought {
    const bytes = this.#current?.piece.bytes
    if (this.#isAtEnd || bytes === undefined) return 'absent'
    // It begins with its folder.
    this.#at = bytes.readUInt32LE(0)
    this.#folder = folderKey(folderAt(bytes, 0))
    return this.#more(bytes)
  }

  #more(bytes: Buffer): Sought {
    if (this.#at >= bytes.length) return 'unread'
    const kind = kindAt(bytes, this.#at)
    return kind === 'more' || kind === 'attributes' ? this.#at : 'absent'
  }

  async load(): Promise<void> {
    const next = await this.#pieces.next()
    this.#at = 0
    if (next.done === true) {
      this.#isAtEnd = true
      this.#current = undefined
    } else this.#current = next.value
  }

  async close(): Promise<void> {
    this.#isAtEnd = true
    this.#current = undefined
    await this.#pieces.return?.()
  }
}

/** Where the attributes of an entry stand that are too large for its record: right behind it, in the same piece. */
function attributesApart(bytes: Buffer, from: number): number | undefined {
  const next = from + bytes.readUInt32LE(from)
  return next < bytes.length && kindAt(bytes, next) === 'attributes' ? next : undefined
}
