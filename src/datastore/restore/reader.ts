/** Reads one backup: its disks and small files. Whoever has it open disposes of it. */
import { Fault, isFault, missing } from '#base/fault.ts'
import { alignedBuffer, blockBytes } from '#host/files/direct-file.ts'
import { tagBytes } from '../keys/box.ts'
import type { RunRoom } from '../chunks/chunk-reader.ts'
import type { OpenDatastore } from '../datastore.ts'
import { DiskMap } from '../maps/disk-map.ts'
import { kinds } from '../format.ts'
import type { Lease } from '../places/lease.ts'
import { DiskReader } from './disk-reader.ts'
import type { Manifest, ManifestBody, ManifestDisk, ManifestHead } from '../points/manifest.ts'
import { printPoint } from '../point.ts'
import type { Location } from '../index/segment.ts'
import { inOrderOfPacks, planned, type Wanted } from '../chunks/planned.ts'
import { TreeReader } from '../tree/reader.ts'
import { StoredTree } from '../tree/stored-tree.ts'

/** Chunks next to each other on a disk that are read and written in one go. */
const runChunks = 8

/** A part of a disk that is not zero. */
export interface DiskPart {
  readonly offset: number
  readonly content: Buffer
}

interface Placed {
  readonly position: number
  readonly id: Buffer
  readonly location: Location
}

export class BackupReader implements AsyncDisposable {
  readonly open: OpenDatastore
  readonly head: ManifestHead
  readonly body: ManifestBody
  readonly #lease: Lease | undefined
  readonly #trees = new Map<string, TreeReader>()
  readonly #closes: AsyncDisposable | undefined

  constructor(
    open: OpenDatastore,
    head: ManifestHead,
    body: ManifestBody,
    { lease, closes }: { readonly lease: Lease | undefined; readonly closes?: AsyncDisposable | undefined },
  ) {
    this.open = open
    this.head = head
    this.body = body
    this.#lease = lease
    this.#closes = closes
  }

  get manifest(): Manifest {
    const { point, pointInTime, finished } = this.head
    return { point, pointInTime, finished, ...this.body }
  }

  get chunkBytes(): number {
    return this.open.datastore.facts.chunkBytes
  }

  /** @throws Fault `missing` */
  disk(name: string): ManifestDisk {
    const disk = this.body.disks.find((one) => one.name === name)
    if (!disk) throw missing('disk', name)
    return disk
  }

  /** @throws Fault `damaged` when the map is not what the manifest says */
  async mapOf(name: string): Promise<DiskMap> {
    const { sizeBytes, root, digest } = this.disk(name)
    const ids = root.map((id) => Buffer.from(id, 'hex'))
    const map = await DiskMap.open(this.open.chunks, Math.ceil(sizeBytes / this.chunkBytes), ids)
    if (this.open.keyring.digestOf(sizeBytes, map.root).toString('hex') === digest) return map
    throw new Fault('damaged', `the map of disk ${name} of backup ${printPoint(this.head.point)} has another digest`)
  }

  /** @throws Fault `missing` */
  tree(name: string): TreeReader {
    const known = this.#trees.get(name)
    if (known) return known
    const facts = this.body.trees.find((one) => one.name === name)
    const backup = printPoint(this.head.point)
    if (!facts) throw missing(`tree of backup ${backup}`, name)
    const tree = new TreeReader(facts, new StoredTree(this.open.chunks, facts, `tree ${name} of backup ${backup}`))
    this.#trees.set(name, tree)
    return tree
  }

  /** A disk to be read at any place. @throws Fault `missing`, `damaged` */
  async openDisk(name: string): Promise<DiskReader> {
    return new DiskReader(this, this.disk(name), await this.mapOf(name))
  }

  /** @throws Fault `missing`, `damaged` */
  async file(name: string): Promise<Buffer> {
    const file = this.body.files.find((one) => one.name === name)
    if (!file) throw missing('file', name)
    const parts: Buffer[] = []
    let bytes = 0
    for (const id of file.chunks) {
      const { content } = await this.open.chunks.read(Buffer.from(id, 'hex'), kinds.content)
      parts.push(content)
      bytes += content.length
      // The same chunk may be named over and over.
      if (bytes > file.sizeBytes) break
    }
    if (bytes !== file.sizeBytes) throw new Fault('damaged', `file ${name} of the backup has another size`)
    return Buffer.concat(parts)
  }

  /** For any run of this backup. */
  roomForRun(): RunRoom {
    // With room for the blocks it begins and ends in.
    const sealed = alignedBuffer(runChunks * (this.chunkBytes + tagBytes) + 2 * blockBytes)
    return { sealed, content: alignedBuffer(runChunks * this.chunkBytes) }
  }

  /**
   * Runs of chunks that lie one behind another in a pack, with the work of reading them still to do: into room, if
   * there is some.
   * @param options.isInOrder of the disk; else as they are read best
   */
  async *runs(
    name: string,
    { isInOrder = true }: { readonly isInOrder?: boolean } = {},
  ): AsyncGenerator<(room?: RunRoom) => Promise<DiskPart[]>> {
    const map = await this.mapOf(name)
    const { sizeBytes } = this.disk(name)
    const { chunks } = this.open
    const entries = isInOrder || !chunks.place.plan ? map.entries() : inOrderOfPacks(chunks, map.entries())
    for await (const run of planned(chunks.place, this.#runsOf(entries), partOf)) yield this.#reading(run, sizeBytes)
  }

  async *#runsOf(entries: AsyncIterable<Wanted & { readonly position: number }>): AsyncGenerator<Placed[]> {
    let run: Placed[] = []
    for await (const { position, id, location: known } of entries) {
      const location = known ?? (await this.open.chunks.locate(id))
      const last = run.at(-1)
      if (last && (run.length >= runChunks || !isNext(last.location, location))) {
        yield run
        run = []
      }
      run.push({ position, id: Buffer.from(id), location })
    }
    if (run.length > 0) yield run
  }

  #reading(run: readonly Placed[], sizeBytes: number): (room?: RunRoom) => Promise<DiskPart[]> {
    return async (room) => {
      const contents = await this.#readRun(run, room)
      return run.map(({ position }, at) => {
        const [content, offset] = [contents[at] ?? Buffer.alloc(0), position * this.chunkBytes]
        if (content.length !== Math.min(this.chunkBytes, sizeBytes - offset)) {
          throw new Fault('damaged', `chunk ${position} of the disk has ${content.length} bytes`)
        }
        return { offset, content }
      })
    }
  }

  async #readRun(run: readonly Placed[], room?: RunRoom): Promise<Buffer[]> {
    const { chunks } = this.open
    try {
      return (await chunks.readRun(run, kinds.content, room)).map(({ content }) => content)
    } catch (fault) {
      // Damage may be that of the index: each is looked for by itself then.
      if (isFault(fault, 'missing')) await chunks.miss(run[0]?.location.pack ?? '')
      else if (!isFault(fault, 'damaged')) throw fault
      const contents: Buffer[] = []
      for (const { id } of run) contents.push((await chunks.read(id, kinds.content)).content)
      return contents
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lease?.[Symbol.asyncDispose]()
    await this.#closes?.[Symbol.asyncDispose]()
  }
}

function partOf(run: readonly Placed[]): Location | undefined {
  const [first, last] = [run[0]?.location, run.at(-1)?.location]
  return first && last && { ...first, length: last.offset + last.length - first.offset }
}

function isNext(last: Location, next: Location): boolean {
  return last.pack === next.pack && last.offset + last.length === next.offset
}
