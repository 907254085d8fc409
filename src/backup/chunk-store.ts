/**
 * The packs of one writer, and its knowledge of every chunk stored before.
 *
 * What is known comes from the tables of packs that committed backups refer to, newest backups of the
 * same guest first, as those answer nearly every question. A pack that is missing or damaged is simply
 * not known, so its chunks are stored again by the next backup that still has them.
 */
import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Digest } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { asFileFault, codeOf, syncDirectory } from '#host/files.ts'
import { type BackupId, printBackupId } from '#datastore/backup-id.ts'
import { encodeBlob } from './blob.ts'
import { packTargetBytes } from './format.ts'
import type { HeldFile } from '#datastore/held-file.ts'
import { KnownChunks, type Location, PackList } from './known-chunks.ts'
import type { Layout } from './layout.ts'
import { PackWriter, readPackTable } from './pack.ts'
import { packsOf } from './sweep.ts'

export interface WriterDeps {
  readonly id: BackupId
  readonly layout: Layout
  /** `writers/<id>`; what the backup will be lies in `backup` below it. */
  readonly directory: string
  /** Held as long as the writer lives. */
  readonly held: HeldFile
  /** Names of the committed backups, oldest first. */
  readonly ids: () => Promise<BackupId[]>
  readonly sweep: () => Promise<unknown>
  readonly clock: Clock
  readonly log: Log
  readonly random: Random
}

export class ChunkStore {
  readonly packs = new PackList()
  readonly #known = new KnownChunks()
  readonly #deps: WriterDeps
  readonly #published = new Set<Digest>()
  /** Numbers of packs of committed backups that are there and not known to be damaged. */
  readonly #numbers = new Map<Digest, number>()
  #open: { readonly pack: PackWriter; readonly number: number } | undefined

  private constructor(deps: WriterDeps) {
    this.#deps = deps
  }

  static async open(id: BackupId, deps: WriterDeps): Promise<ChunkStore> {
    const store = new ChunkStore(deps)
    await store.#learn(id)
    return store
  }

  /** Where the chunk lies; stores it when nobody has it. `storedBytes` is 0 for one that was there. */
  async put(plain: Uint8Array, digest: Buffer): Promise<{ location: Location; storedBytes: number }> {
    const known = this.#known.find(digest)
    if (known) return { location: known, storedBytes: 0 }
    const blob = encodeBlob(plain, digest)
    const { pack, number } = await this.#openPack()
    const { length } = blob
    const location: Location = { pack: number, offset: await pack.append(blob, digest), length }
    this.#known.add(digest, location)
    if (pack.sizeBytes >= packTargetBytes) await this.#closePack()
    return { location, storedBytes: length }
  }

  /** Where a chunk lies that an earlier backup has at this place. Nothing when its pack cannot be relied upon. */
  adopt(digest: Buffer, pack: Digest, offset: number, length: number): Location | undefined {
    const known = this.#known.find(digest)
    if (known) return known
    const number = this.#numbers.get(pack)
    return number === undefined ? undefined : { pack: number, offset, length }
  }

  /** Puts the last pack into place; afterwards every pack in use has a name and survives power loss. */
  async finish(): Promise<void> {
    await this.#closePack()
    const { layout } = this.#deps
    for (const path of new Set([...this.#published].map((id) => dirname(layout.pack(id))))) await syncDirectory(path)
  }

  /** Deletes the pack being written. */
  async discard(): Promise<void> {
    if (!this.#open) return
    await this.#open.pack.discard()
    await rm(this.#open.pack.path, { force: true })
    this.#open = undefined
  }

  async #openPack(): Promise<{ pack: PackWriter; number: number }> {
    if (this.#open) return this.#open
    const number = this.packs.add()
    this.#open = { number, pack: await PackWriter.create(join(this.#deps.directory, `pack-${number}`)) }
    return this.#open
  }

  async #closePack(): Promise<void> {
    if (!this.#open) return
    const { pack, number } = this.#open
    this.#open = undefined
    const id = await pack.finish()
    const path = this.#deps.layout.pack(id)
    try {
      // A pack of the same name has the same content, unless it was damaged: then this mends it.
      await mkdir(dirname(path), { recursive: true, mode: 0o700 })
      await rename(pack.path, path)
      await rm(this.#deps.layout.suspect(id), { force: true })
      this.#published.add(id)
    } catch (cause) {
      throw asFileFault(cause, path)
    }
    this.packs.setName(number, id)
  }

  async #learn(id: BackupId): Promise<void> {
    const all = (await this.#deps.ids()).reverse()
    const isOfGuest = (other: BackupId) => other.type === id.type && other.id === id.id
    const seen = new Set<Digest>()
    for (const backup of [...all.filter(isOfGuest), ...all.filter((other) => !isOfGuest(other))]) {
      for (const pack of await this.#packsOf(backup)) {
        // Past that, what the guest itself has already still counts.
        if (this.#known.isFull && !isOfGuest(backup)) return
        if (!seen.has(pack)) await this.#learnPack(pack)
        seen.add(pack)
      }
    }
  }

  async #packsOf(backup: BackupId): Promise<Iterable<Digest>> {
    try {
      return await packsOf(this.#deps.layout, backup)
    } catch (cause) {
      if (!(cause instanceof Fault)) throw cause
      this.#deps.log.warn('a damaged backup is not used for deduplication', { backup: printBackupId(backup), cause })
      return []
    }
  }

  async #learnPack(id: Digest): Promise<void> {
    const { layout, log } = this.#deps
    if (!(await isAbsent(layout.suspect(id)))) return
    try {
      const entries = await readPackTable(layout.pack(id), `pack ${id}`)
      const pack = this.packs.add(id)
      this.#numbers.set(id, pack)
      for (const { digest, offset, length } of entries) this.#known.add(digest, { pack, offset, length })
    } catch (cause) {
      if (!(cause instanceof Fault)) throw cause
      log.warn('a damaged pack is not used for deduplication', { pack: id, cause })
    }
  }
}

async function isAbsent(path: string): Promise<boolean> {
  try {
    await stat(path)
    return false
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return true
    throw asFileFault(cause, path)
  }
}
