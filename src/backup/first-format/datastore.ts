/**
 * A datastore of the first format, read only: nothing writes it any more, and nothing here does. Its backups are taken
 * over into an encrypted one (`take-over.ts`). Described byte by byte in docs/formats/backup-v1.md.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { missing } from '#base/fault.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import { type BackupId, printBackupId, tryParseBackupId } from '#datastore/backup-id.ts'
import { isOfFirstFormat } from './found.ts'
import { Layout } from './layout.ts'
import { type Marks, readMarks } from './marks.ts'
import { BackupReader } from './reader.ts'

export class FirstDatastore {
  readonly #layout: Layout

  private constructor(layout: Layout) {
    this.#layout = layout
  }

  /** @throws Fault `missing` when there is none in the folder */
  static async open(path: string): Promise<FirstDatastore> {
    if (await isOfFirstFormat(path)) return new FirstDatastore(new Layout(path))
    throw missing('datastore of the first format', path)
  }

  /** Names of all backups, oldest first, without reading any. */
  async ids(): Promise<BackupId[]> {
    const ids: BackupId[] = []
    for (const type of await namesIn(this.#layout.backups())) {
      for (const name of await namesIn(join(this.#layout.backups(), type))) {
        for (const time of await namesIn(join(this.#layout.backups(), type, name))) {
          const id = tryParseBackupId(`${type}/${name}/${time}`)
          if (id) ids.push(id)
        }
      }
    }
    return ids.toSorted((a, b) => a.time - b.time || printBackupId(a).localeCompare(printBackupId(b)))
  }

  /** The caller disposes of the reader. @throws Fault `missing`, `damaged` naming the file */
  open(id: BackupId): Promise<BackupReader> {
    return BackupReader.open(this.#layout, id)
  }

  /** @throws Fault `damaged` */
  marks(id: BackupId): Promise<Marks> {
    return readMarks(this.#layout, id)
  }
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).toSorted()
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return []
    throw asFileFault(cause, path)
  }
}
