/**
 * A datastore: a directory of immutable packs, and of backups that refer to them.
 *
 * Who may run beside whom:
 *
 *             | writer          | reader, verify | remove                | sweep
 *   ----------+-----------------+----------------+-----------------------+--------------------------
 *   writer    | yes: own names, | yes            | yes: what it reuses   | no: a sweep does nothing
 *             | double chunks   |                | stays until a sweep   | while a writer lives, a
 *             | are harmless    |                |                       | writer waits for its end
 *   reader    |                 | yes            | yes: files stay until | no: a sweep does nothing
 *             |                 |                | a sweep               | while a reader lives
 *   remove    |                 |                | yes: one of them wins | yes
 *   sweep     |                 |                |                       | no: the lock is held
 *
 * A writer announces itself in `writers/<id>/` and holds a file there as long as it lives (`held-file.ts`),
 * so its death by any means is seen at once. Whatever lies in `writers/` without a living holder is a
 * leftover – of a killed writer, of an interrupted remove – and tells the next opener to sweep.
 * Chunks are only reused from committed backups, so nobody ever depends on a writer that may fail.
 */
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { Fault, missing } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { asFileFault, codeOf, readIfPresent, syncDirectory, writeFileAtomic } from '#host/files.ts'
import { type BackupId, checkBackupId, printBackupId, tryParseBackupId } from '#datastore/backup-id.ts'
import { chunkBytes, formatVersion } from './format.ts'
import { HeldFile } from '#datastore/held-file.ts'
import { Layout } from './layout.ts'
import { type Manifest, parseManifest } from './manifest.ts'
import { type Marks, readMarks, removeMarks, writeMarks } from './marks.ts'
import { BackupReader } from './reader.ts'
import { seal, unseal } from '#datastore/sealed.ts'
import { isSweepNeeded, sweep, type SweepResult } from './sweep.ts'
import { BackupWriter } from './writer.ts'

export interface DatastoreDeps {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

export interface BackupInfo {
  readonly id: BackupId
  readonly marks: Marks
  /** Absent when the manifest cannot be read; `damage` says why. */
  readonly manifest?: Manifest
  readonly damage?: string
}

export const lockTimeoutMs = 120_000

/**
 * Opens the datastore in a directory, and gives back the space of what was interrupted there.
 * @param options.create makes an empty one when there is none
 * @param options.sweeps false for a mere look, which must not take long
 * @throws Fault `missing`, `damaged`, or `invalid` for a format this version does not know
 */
export async function openDatastore(
  path: string,
  deps: DatastoreDeps,
  options: { readonly create?: boolean; readonly sweeps?: boolean } = {},
): Promise<Datastore> {
  const layout = new Layout(path)
  const text = await readIfPresent(layout.format())
  if (text === undefined && !options.create) throw missing('datastore', path)
  if (text === undefined) await createDatastore(layout, deps)
  else checkFormat(text, layout.format())
  const datastore = new Datastore(layout, deps)
  if (options.sweeps !== false && (await isSweepNeeded(layout))) await datastore.sweep()
  return datastore
}

export class Datastore {
  readonly #layout: Layout
  readonly #deps: DatastoreDeps

  /** For `openDatastore`. */
  constructor(layout: Layout, deps: DatastoreDeps) {
    this.#layout = layout
    this.#deps = deps
  }

  /** Starts a backup. Nothing of it is visible before its `commit`. @throws Fault `conflict` when it exists */
  async begin(id: BackupId): Promise<BackupWriter> {
    checkBackupId(id)
    if (await this.exists(id)) throw new Fault('conflict', `backup ${printBackupId(id)} already exists`)
    const { clock, random } = this.#deps
    const directory = join(this.#layout.writers(), random.uuid())
    const lock = await HeldFile.hold(this.#layout.lock(), 'the datastore', { timeoutMs: lockTimeoutMs, clock })
    try {
      await mkdir(join(directory, 'backup', 'files'), { recursive: true, mode: 0o700 })
      const held = HeldFile.tryHold(join(directory, 'held'))
      if (!held) throw new Error('a new file is held by somebody else')
      return new BackupWriter({
        id,
        layout: this.#layout,
        directory,
        held,
        ids: () => this.ids(),
        sweep: () => this.sweep(),
        ...this.#deps,
      })
    } catch (cause) {
      await rm(directory, { recursive: true, force: true })
      throw asFileFault(cause, directory)
    } finally {
      lock.release()
    }
  }

  async exists(id: BackupId): Promise<boolean> {
    return (await readIfPresent(this.#layout.manifest(id))) !== undefined
  }

  /** All backups, or those of one guest, oldest first. A damaged one is listed with its damage. */
  async list(of: { readonly type?: string; readonly id?: string } = {}): Promise<BackupInfo[]> {
    const ids = await this.ids(of)
    const infos: BackupInfo[] = []
    for (const id of ids) {
      const info = await this.#infoOf(id)
      if (info) infos.push(info)
    }
    return infos
  }

  /** Names of all backups, oldest first, without reading any. */
  async ids(of: { readonly type?: string; readonly id?: string } = {}): Promise<BackupId[]> {
    const ids: BackupId[] = []
    for (const type of await namesIn(this.#layout.backups())) {
      if (of.type !== undefined && type !== of.type) continue
      for (const name of await namesIn(join(this.#layout.backups(), type))) {
        if (of.id !== undefined && name !== of.id) continue
        for (const time of await namesIn(join(this.#layout.backups(), type, name))) {
          const id = tryParseBackupId(`${type}/${name}/${time}`)
          if (id) ids.push(id)
        }
      }
    }
    return ids.sort((a, b) => a.time - b.time || printBackupId(a).localeCompare(printBackupId(b)))
  }

  /** @throws Fault `missing`, `damaged` naming the file */
  async open(id: BackupId): Promise<BackupReader> {
    return BackupReader.open(this.#layout, id, { ...this.#deps, onClose: () => this.#sweepAfterReading() })
  }

  async marks(id: BackupId): Promise<Marks> {
    return readMarks(this.#layout, id)
  }

  /** Changes notes or protection; what is not named stays. */
  async mark(id: BackupId, change: Marks): Promise<void> {
    if (!(await this.exists(id))) throw missing('backup', printBackupId(id))
    // Held like a reader: no sweep takes what is being written here for a leftover, and what we leave when killed is found.
    const path = join(this.#layout.readers(), this.#deps.random.uuid())
    const held = HeldFile.tryHold(path)
    try {
      await writeMarks(this.#layout, id, { ...(await readMarks(this.#layout, id)), ...change })
    } finally {
      held?.release()
      await rm(path, { force: true })
    }
  }

  /** Makes a backup vanish at once, and gives back the space nobody else uses. @throws Fault `missing`, `conflict` */
  async remove(id: BackupId): Promise<void> {
    if ((await this.marks(id)).protected) {
      throw new Fault('conflict', `backup ${printBackupId(id)} is protected`, {
        remedy: 'Remove the protection first.',
      })
    }
    await this.#bury(id)
    await removeMarks(this.#layout, id)
    await this.sweep()
  }

  async #bury(id: BackupId): Promise<void> {
    const { clock, random } = this.#deps
    const grave = join(this.#layout.writers(), random.uuid())
    using _lock = await HeldFile.hold(this.#layout.lock(), 'the datastore', { timeoutMs: lockTimeoutMs, clock })
    try {
      await mkdir(grave, { mode: 0o700 })
      await rename(this.#layout.backup(id), join(grave, 'removed'))
      await syncDirectory(join(this.#layout.backup(id), '..'))
    } catch (cause) {
      await rm(grave, { recursive: true, force: true })
      throw codeOf(cause) === 'ENOENT' ? missing('backup', printBackupId(id)) : asFileFault(cause, grave)
    }
  }

  /** Deletes what no backup refers to, unless somebody is writing or reading. */
  async sweep(): Promise<SweepResult> {
    return sweep(this.#layout, () => this.ids(), this.#deps)
  }

  /** A backup removed while it was read gives its space back when the last reader goes. */
  async #sweepAfterReading(): Promise<void> {
    try {
      if (await isSweepNeeded(this.#layout)) await this.sweep()
    } catch (cause) {
      this.#deps.log.warn('a datastore was not swept after it was read', { datastore: this.#layout.root, cause })
    }
  }

  get layout(): Layout {
    return this.#layout
  }

  async #infoOf(id: BackupId): Promise<BackupInfo | undefined> {
    let marks: Marks = {}
    try {
      const text = await readIfPresent(this.#layout.manifest(id))
      if (text === undefined) return await this.#withoutManifest(id)
      const manifest = parseManifest(text, `the manifest of backup ${printBackupId(id)}`)
      marks = await readMarks(this.#layout, id)
      return { id, marks, manifest }
    } catch (cause) {
      if (!(cause instanceof Fault)) throw cause
      return { id, marks, damage: cause.message }
    }
  }

  /** Removed while we listed, or damaged by other hands. */
  async #withoutManifest(id: BackupId): Promise<BackupInfo | undefined> {
    const isThere = (await namesIn(this.#layout.backup(id))).length > 0
    return isThere ? { id, marks: {}, damage: `backup ${printBackupId(id)} has no manifest` } : undefined
  }
}

async function createDatastore(layout: Layout, { clock, random }: DatastoreDeps): Promise<void> {
  try {
    await mkdir(layout.root, { recursive: true, mode: 0o700 })
    for (const path of [layout.backups(), layout.packs(), layout.writers(), layout.readers(), layout.suspects()]) {
      await mkdir(path, { recursive: true, mode: 0o700 })
    }
    for (let first = 0; first < 256; first += 1) {
      await mkdir(join(layout.packs(), first.toString(16).padStart(2, '0')), { recursive: true, mode: 0o700 })
    }
    await syncDirectory(layout.packs())
  } catch (cause) {
    throw asFileFault(cause, layout.root)
  }
  const created = Math.floor(clock.now() / 1000)
  await writeFileAtomic(
    layout.format(),
    seal({
      format: 'hakobune-datastore',
      version: formatVersion,
      id: random.uuid(),
      created,
      chunkBytes,
      digest: 'sha256',
    }),
  )
}

function checkFormat(text: string, path: string): void {
  const value = unseal(text, `'${path}'`)
  const { format, version, ...rest } = Object(value) as Readonly<Record<string, unknown>>
  if (format !== 'hakobune-datastore') throw new Fault('damaged', `'${path}' does not describe a datastore`)
  if (version !== formatVersion || rest.chunkBytes !== chunkBytes || rest.digest !== 'sha256') {
    throw new Fault(
      'invalid',
      `the datastore '${path}' has format version ${String(version)}; this program reads version ${formatVersion}`,
      { remedy: 'Use the version of Hakobune that wrote it, or a newer one.' },
    )
  }
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).sort()
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return []
    throw asFileFault(cause, path)
  }
}
