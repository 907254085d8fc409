/** Where things lie in a datastore. Paths only; the rules are in `datastore.ts`. */
import { join } from 'node:path'
import type { Digest } from '#base/ids.ts'
import { type BackupId, printBackupId } from '#datastore/backup-id.ts'
import { packPath } from './pack.ts'

export class Layout {
  readonly root: string

  constructor(root: string) {
    this.root = root
  }

  readonly format = (): string => join(this.root, 'format')
  /** Held for the moment a writer announces itself, and for a whole sweep. */
  readonly lock = (): string => join(this.root, 'lock')
  readonly backups = (): string => join(this.root, 'backups')
  readonly backup = (id: BackupId): string => join(this.root, 'backups', printBackupId(id))
  readonly manifest = (id: BackupId): string => join(this.backup(id), 'manifest.json')
  readonly index = (id: BackupId, disk: string): string => join(this.backup(id), `${disk}.index`)
  readonly tree = (id: BackupId, name: string): string => join(this.backup(id), `${name}.tree`)
  readonly file = (id: BackupId, name: string): string => join(this.backup(id), 'files', name)
  /** Notes and protection of a backup: they change, it does not. */
  readonly marks = (id: BackupId): string => join(this.root, 'marks', `${printBackupId(id)}.json`)
  readonly allMarks = (): string => join(this.root, 'marks')
  readonly packs = (): string => join(this.root, 'packs')
  readonly pack = (id: Digest): string => join(this.root, packPath(id))
  /** Packs in which a damaged chunk was seen; nothing new refers to them. */
  readonly suspects = (): string => join(this.root, 'suspects')
  readonly suspect = (id: Digest): string => join(this.root, 'suspects', id)
  readonly writers = (): string => join(this.root, 'writers')
  readonly readers = (): string => join(this.root, 'readers')
}
