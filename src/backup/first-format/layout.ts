/** Where things lie in a datastore. Paths only; the rules are in `datastore.ts`. */
import { join } from 'node:path'
import type { Digest } from '#base/ids.ts'
import { type BackupId, printBackupId } from '#datastore/backup-id.ts'

export class Layout {
  readonly root: string

  constructor(root: string) {
    this.root = root
  }

  readonly format = (): string => join(this.root, 'format')
  readonly backups = (): string => join(this.root, 'backups')
  readonly backup = (id: BackupId): string => join(this.root, 'backups', printBackupId(id))
  readonly manifest = (id: BackupId): string => join(this.backup(id), 'manifest.json')
  readonly index = (id: BackupId, disk: string): string => join(this.backup(id), `${disk}.index`)
  readonly tree = (id: BackupId, name: string): string => join(this.backup(id), `${name}.tree`)
  readonly file = (id: BackupId, name: string): string => join(this.backup(id), 'files', name)
  /** Notes and protection of a backup: they change, it does not. */
  readonly marks = (id: BackupId): string => join(this.root, 'marks', `${printBackupId(id)}.json`)
  readonly pack = (id: Digest): string => join(this.root, 'packs', id.slice(0, 2), id)
}
