/**
 * Checks all backups at once: everything is read once, however many backups share it. Where something is not proven that
 * a backup needs, that backup is checked by itself, which says what is wrong and whether another copy helps.
 */
import { seconds } from '#base/clock.ts'
import { type Fault, isFault } from '#base/fault.ts'
import { byIndexAlone } from './by-index.ts'
import type { BackupReader } from '../restore/reader.ts'
import type { OpenDatastore } from '../datastore.ts'
import { isZeroId } from '../maps/disk-map.ts'
import { shortIdBytes } from '../format.ts'
import { isRefused } from '../foreign.ts'
import { goOn } from '../go-on.ts'
import { ifAllowed } from './if-allowed.ts'
import type { ManifestDisk } from '../points/manifest.ts'
import type { RestorePoint } from '../point.ts'
import { ProvenChunks } from './proven-chunks.ts'
import { chunksOfTree } from '../tree/verify.ts'
import { isDamage, type VerifiedBackup, verifyBackup, type VerifyOptions } from './verify.ts'
import { checkedIndex } from './whole-index.ts'

/** Pieces of maps remembered as whole, some 120 bytes each. */
const piecesRemembered = 2 ** 16

export interface Verdict {
  /** Of a backup; or of all, when the index or a pack is damaged. */
  readonly point?: RestorePoint
  readonly found?: VerifiedBackup
  readonly damage?: string
  /** Why nobody can say: access to something it needs is refused. */
  readonly unread?: string
  /** Damage of the index that is no more. */
  readonly mended?: string
}

/** @throws Fault `aborted` */
export async function* verifyEverything(open: OpenDatastore, options: VerifyOptions = {}): AsyncGenerator<Verdict> {
  open.keyring.requireReading()
  const { damage: left, mended } = await checkedIndex(open, options.signal)
  for (const damage of left) yield { damage }
  for (const one of mended) yield { mended: one }
  const proven = await ProvenChunks.of(open, options)
  const [unread, ...more] = proven.unread
  if (unread !== undefined) yield { unread: more.length === 0 ? unread : `${unread}; nor ${more.length} packs more` }
  for (const pack of proven.damaged) yield { damage: `pack ${pack} is damaged: it is not what was written` }
  const check = new BackupCheck(byIndexAlone(open), proven, options)
  for (const point of await open.datastore.points()) {
    goOn(options.signal)
    try {
      yield { point, found: (await check.run(point)) ?? (await verifyBackup(open, point, options)) }
    } catch (fault) {
      if (isDamage(fault)) yield { point, damage: fault.message }
      else if (isRefused(fault)) yield { point, unread: fault.message }
      else throw fault
    }
  }
}

class BackupCheck {
  readonly #open: OpenDatastore
  readonly #proven: ProvenChunks
  readonly #options: VerifyOptions
  /** Of pieces whose chunks are all proven: how many there are. */
  readonly #pieces = new Map<string, number>()

  constructor(open: OpenDatastore, proven: ProvenChunks, options: VerifyOptions) {
    this.#open = open
    this.#proven = proven
    this.#options = options
  }

  /** @returns nothing when something is not proven */
  async run(point: RestorePoint): Promise<VerifiedBackup | undefined> {
    const { datastore } = this.#open
    const verified = seconds(datastore.deps.clock)
    try {
      await using reader = await this.#open.open(point)
      const found = await this.#look(reader)
      await ifAllowed(this.#options, () => datastore.mark(point, { verified, damage: undefined }))
      return found
    } catch (fault) {
      // Said by who looks closer.
      if (fault instanceof NotProven || isFault(fault, 'damaged')) return undefined
      throw fault
    }
  }

  async #look(reader: BackupReader): Promise<VerifiedBackup> {
    const { disks, trees, files } = reader.body
    let [chunks, bytes] = [0, 0]
    for (const { name } of files) bytes += (await reader.file(name)).length
    for (const disk of disks) {
      const found = await this.#disk(reader, disk)
      chunks += found.chunks
      bytes += found.bytes
    }
    for (const { name } of trees) {
      const fail = (damage: Fault) => {
        throw damage
      }
      for await (const chunk of chunksOfTree(reader.tree(name), fail)) {
        this.#require(chunk.id, false)
        chunks += 1
        bytes += chunk.bytes
      }
    }
    return { chunks, bytes }
  }

  async #disk(reader: BackupReader, { name, sizeBytes }: ManifestDisk): Promise<VerifiedBackup> {
    const map = await reader.mapOf(name)
    const { chunkBytes } = reader
    let [chunks, short] = [0, 0]
    for (let piece = 0; piece < map.pieces; piece += 1) {
      goOn(this.#options.signal)
      const id = map.pieceId(piece)
      if (isZeroId(id)) continue
      // The last chunk of the disk may be shorter; its piece is looked at each time.
      const isLast = piece === map.pieces - 1
      const key = id.toString('latin1')
      const known = isLast ? undefined : this.#pieces.get(key)
      if (known !== undefined) {
        chunks += known
        continue
      }
      const { ids } = await map.piece(piece)
      const lastAt = isLast && sizeBytes % chunkBytes !== 0 ? ids.length - shortIdBytes : -1
      const count = this.#requireAll(ids, lastAt)
      if (lastAt >= 0 && !isZeroId(ids, lastAt)) {
        short = chunkBytes - (await this.#lastBytes(ids.subarray(lastAt), sizeBytes % chunkBytes))
      }
      if (!isLast && this.#pieces.size < piecesRemembered) this.#pieces.set(key, count)
      chunks += count
    }
    return { chunks, bytes: chunks * chunkBytes - short }
  }

  #requireAll(ids: Buffer, lastAt: number): number {
    let count = 0
    for (let at = 0; at < ids.length; at += shortIdBytes) {
      if (isZeroId(ids, at)) continue
      this.#require(ids.subarray(at, at + shortIdBytes), at !== lastAt)
      count += 1
    }
    return count
  }

  async #lastBytes(id: Buffer, bytes: number): Promise<number> {
    const { plainBytes } = await this.#open.chunks.locate(id)
    if (plainBytes !== bytes) throw new NotProven()
    return bytes
  }

  #require(id: Buffer, isFull: boolean): void {
    if (!this.#proven.has(id, isFull)) throw new NotProven()
  }
}

class NotProven extends Error {}
