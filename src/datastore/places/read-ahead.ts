/**
 * Reads of packs where each request has a way to go: who knows what it will read says so beforehand, and what lies near each
 * other comes by one request, some of it before it is asked for. What nobody announced is read as it is asked for, and no
 * more: a guest that runs from its backup reads here and there.
 *
 * Memory has a bound, whoever announces what: when it is reached, what came first goes, and is read again by itself.
 */
import { KiB, MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { letGo } from '#base/let-go.ts'
import type { ReadPlan } from './place.ts'

/** Of one request. */
const blockMaximumBytes = 8 * MiB
/** What nobody wants between two parts, two chunks or so, is read when it is less: it takes no longer than to ask once more. */
const gapBytes = 320 * KiB
const heldMaximumBytes = 96 * MiB
/** Before anybody waits for them. */
const fetchedAtOnce = 3
/** Of a pack, before its first chunk. */
const headBytes = 64
/** Of a pack, with its table: read by whoever asks for its size. */
const endBytes = 16 * KiB
const endsKept = 64
/** For `Place.nearBytes`. */
export const remoteNearBytes = 256 * KiB

/** Each a request. */
export interface PacksElsewhere {
  readonly read: (name: string, offset: number, length: number) => Promise<Buffer>
  readonly sizeOf: (name: string) => Promise<number>
  /** The last bytes, and the size of it all; where the place can tell both at once. */
  readonly readEnd?: (name: string, length: number) => Promise<{ readonly sizeBytes: number; readonly end: Buffer }>
}

/** A part somebody will read. */
interface Expected {
  readonly name: string
  readonly from: number
  readonly to: number
  block?: Block
}

/** What comes by one request. */
interface Block {
  readonly name: string
  readonly from: number
  readonly to: number
  readonly bytes: Promise<Buffer>
  readonly parts: Set<Expected>
  isFetched: boolean
  /** Who copies from it now. */
  readers: number
}

export class ReadAhead {
  readonly #elsewhere: PacksElsewhere
  /** Parts no block is made of yet, in the order they will be read. */
  readonly #waiting = new Set<Expected>()
  readonly #waitingIn = new Map<string, Set<Expected>>()
  readonly #parts = new Map<string, Expected[]>()
  readonly #blocks = new Map<string, Set<Block>>()
  readonly #ends = new Map<string, { readonly sizeBytes: number; readonly end: Buffer }>()
  #heldBytes = 0
  #underWay = 0

  constructor(elsewhere: PacksElsewhere) {
    this.#elsewhere = elsewhere
  }

  static isOne(name: string): boolean {
    return name.startsWith('packs/')
  }

  plan(): ReadPlan {
    const parts = new Set<Expected>()
    return {
      add: (name, offset, length) => {
        if (!ReadAhead.isOne(name)) return
        const part: Expected = { name, from: offset, to: offset + length }
        parts.add(part)
        this.#wait(part)
        const key = keyOf(part)
        this.#parts.set(key, [...(this.#parts.get(key) ?? []), part])
      },
      [Symbol.dispose]: () => {
        for (const part of parts) this.#done(part)
      },
    }
  }

  /** Size of a pack; what is read to learn it is kept for whoever reads its end. @throws Fault `missing` */
  async sizeOf(name: string): Promise<number> {
    const found = await this.#elsewhere.readEnd?.(name, endBytes).catch((fault: unknown) => {
      // An empty one has no end, and not every server knows what that is.
      if (isFault(fault, 'damaged') || isFault(fault, 'too-large')) return undefined
      throw fault
    })
    if (!found) return this.#elsewhere.sizeOf(name)
    this.#ends.delete(name)
    this.#ends.set(name, found)
    const [oldest] = this.#ends.keys()
    if (this.#ends.size > endsKept && oldest !== undefined) this.#ends.delete(oldest)
    return found.sizeBytes
  }

  /** @param room where it may be put, if it is large enough. @throws as the place does */
  async read(name: string, offset: number, length: number, room?: Buffer): Promise<Buffer> {
    const end = this.#endWith(name, offset, length)
    if (end) return copied(end, room)
    const to = offset + length
    const part = this.#parts.get(keyOf({ name, from: offset }))?.find((one) => one.to === to)
    const block = this.#blockWith(name, offset, to) ?? this.#blockFor({ name, from: offset, to })
    this.#fetchOn()
    if (block) block.readers += 1
    try {
      if (block) return copied((await block.bytes).subarray(offset - block.from, to - block.from), room)
    } catch (fault) {
      // Of a pack that was cut off, or that is not given out in part: what is asked for may be whole.
      if (!isFault(fault, 'damaged')) throw fault
    } finally {
      if (block) this.#left(block, part)
      else if (part) this.#done(part)
    }
    return this.#elsewhere.read(name, offset, length)
  }

  /** What is there under the name is another thing now, or nothing. */
  forget(name: string): void {
    this.#ends.delete(name)
    for (const block of this.#blocks.get(name) ?? []) this.#drop(block)
  }

  #endWith(name: string, offset: number, length: number): Buffer | undefined {
    const kept = this.#ends.get(name)
    if (!kept) return undefined
    const at = offset - (kept.sizeBytes - kept.end.length)
    return at >= 0 && at + length <= kept.end.length ? kept.end.subarray(at, at + length) : undefined
  }

  #blockWith(name: string, from: number, to: number): Block | undefined {
    return this.#blocks
      .get(name)
      ?.values()
      .find((block) => block.from <= from && block.to >= to)
  }

  /** A block of what is asked for and of what lies near; nothing when that is all there is to read. */
  #blockFor(asked: Expected): Block | undefined {
    let { from, to } = asked
    const near: Expected[] = []
    const waiting = [...(this.#waitingIn.get(asked.name) ?? [])].toSorted((a, b) => a.from - b.from)
    const first = waiting.findIndex((part) => part.from >= from)
    const [before, behind] = first < 0 ? [waiting, []] : [waiting.slice(0, first), waiting.slice(first)]
    for (const part of before.toReversed()) {
      // Most of what is to come lies behind.
      if (from - part.to > gapBytes || to - part.from > blockMaximumBytes / 2) break
      from = Math.min(from, part.from)
      near.push(part)
    }
    for (const part of behind) {
      if (part.from - to > gapBytes || part.to - from > blockMaximumBytes) break
      to = Math.max(to, part.to)
      near.push(part)
    }
    // Who reads the first of it opens it, too.
    if (from <= headBytes) from = 0
    return near.length === 0 ? undefined : this.#fetch(asked.name, { from, to, parts: new Set(near) })
  }

  #fetch(name: string, { from, to, parts }: Pick<Block, 'from' | 'to' | 'parts'>): Block {
    const bytes = this.#elsewhere.read(name, from, to - from)
    const block: Block = { name, from, to, parts, bytes, isFetched: false, readers: 0 }
    for (const part of parts) {
      this.#unwait(part)
      part.block = block
    }
    const blocks = this.#blocks.get(name) ?? new Set()
    this.#blocks.set(name, blocks.add(block))
    this.#heldBytes += to - from
    this.#underWay += 1
    bytes
      .finally(() => {
        this.#underWay -= 1
        block.isFetched = true
      })
      .then(
        () => {
          if (block.parts.size === 0 && block.readers === 0) this.#drop(block)
          this.#fetchOn()
        },
        () => this.#drop(block),
      )
    this.#keepBound()
    return block
  }

  /** Some of what comes next. */
  #fetchOn(): void {
    for (const next of this.#waiting) {
      if (this.#underWay >= fetchedAtOnce || this.#heldBytes + blockMaximumBytes > heldMaximumBytes) return
      this.#blockFor(next)
    }
  }

  #keepBound(): void {
    for (const blocks of this.#blocks.values()) {
      for (const block of blocks) {
        if (this.#heldBytes <= heldMaximumBytes) return
        if (block.isFetched && block.readers === 0) this.#drop(block)
      }
    }
  }

  #left(block: Block, part: Expected | undefined): void {
    block.readers -= 1
    if (part) this.#done(part)
    if (block.parts.size === 0 && block.readers === 0) this.#drop(block)
  }

  /** Its parts, if there are any left, are read by themselves. */
  #drop(block: Block): void {
    const blocks = this.#blocks.get(block.name)
    if (!blocks?.delete(block)) return
    if (blocks.size === 0) this.#blocks.delete(block.name)
    this.#heldBytes -= block.to - block.from
    for (const part of block.parts) this.#done(part)
    if (block.isFetched && block.readers === 0) block.bytes.then(letGo, () => {})
  }

  #wait(part: Expected): void {
    this.#waiting.add(part)
    const waiting = this.#waitingIn.get(part.name) ?? new Set()
    this.#waitingIn.set(part.name, waiting.add(part))
  }

  #unwait(part: Expected): void {
    this.#waiting.delete(part)
    const waiting = this.#waitingIn.get(part.name)
    waiting?.delete(part)
    if (waiting?.size === 0) this.#waitingIn.delete(part.name)
  }

  /** It was read, or nobody wants it any more. */
  #done(part: Expected): void {
    const key = keyOf(part)
    const others = this.#parts.get(key)?.filter((one) => one !== part) ?? []
    if (others.length === 0) this.#parts.delete(key)
    else this.#parts.set(key, others)
    this.#unwait(part)
    const { block } = part
    if (block?.parts.delete(part) && block.parts.size === 0 && block.isFetched && block.readers === 0) this.#drop(block)
  }
}

function keyOf({ name, from }: Pick<Expected, 'name' | 'from'>): string {
  return `${name} ${from}`
}

function copied(bytes: Buffer, room: Buffer | undefined): Buffer {
  // Of its own: whoever reads gives the memory back.
  const into =
    room && room.length >= bytes.length ? room.subarray(0, bytes.length) : Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(into)
  return into
}
