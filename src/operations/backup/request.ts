/**
 * From the parameters of `POST /nodes/{node}/vzdump` to what the backup operation does. What would change
 * the meaning of a backup and is not done here is refused by name; what merely tunes other programs is
 * taken and has nothing to act on.
 */
import { invalid } from '#base/fault.ts'
import { readRetention } from '#base/retention.ts'
import { splitList } from '#base/schema/formats.ts'
import type { BackupMode } from './one-guest.ts'
import { checkNotesTemplate } from './notes-template.ts'
import type { BackupGuests } from './run.ts'

export interface VzdumpParams {
  readonly vmid?: string | undefined
  readonly all?: boolean | undefined
  readonly exclude?: string | undefined
  readonly storage?: string | undefined
  readonly mode?: BackupMode | undefined
  readonly bwlimit?: number | undefined
  readonly 'notes-template'?: string | undefined
  readonly protected?: boolean | undefined
  readonly fleecing?: string | undefined
  readonly lockwait?: number | undefined
  readonly stopwait?: number | undefined
  readonly 'prune-backups'?: string | undefined
  readonly remove?: boolean | undefined
  readonly [refused: string]: unknown
}

export const defaults = { mode: 'snapshot', storage: 'local', bwlimit: 0, lockwait: 180, stopwait: 10 } as const

/** Values that mean the same as leaving the parameter out. */
const harmless: Readonly<Record<string, readonly unknown[]>> = {
  stdout: [false],
  stop: [false],
  mailto: [''],
}

const refusals: Readonly<Record<string, string>> = {
  dumpdir: 'backups go to the datastore of a storage: name it with storage',
  tmpdir: 'this program needs no temporary directory',
  script: 'hook scripts are not run by this release',
  stdout: 'a backup cannot be written to standard output by this release',
  stop: 'stop a running backup with the task it runs in',
  mailto: 'this release sends no mail',
  pool: 'name the guests: a pool stands for those in it when it is asked for',
}

/** @throws Fault `invalid` naming each field */
export function backupRequest(params: VzdumpParams): BackupGuests {
  const errors: Record<string, string> = {}
  for (const [name, why] of Object.entries(refusals)) {
    const value = params[name]
    if (value !== undefined && !harmless[name]?.includes(value)) errors[name] = why
  }
  if (params.vmid === undefined && params.all !== true) errors.vmid = 'property is missing and it is not optional'
  if (params.vmid !== undefined && params.all === true) errors.all = "cannot be used together with 'vmid'"
  if (params.exclude !== undefined && params.all !== true) errors.exclude = "needs 'all'"
  if (Object.keys(errors).length > 0) throw invalid(errors)
  const keep = params['prune-backups']
  if (keep !== undefined) readRetention(keep)
  if (params['notes-template'] !== undefined) checkNotesTemplate(params['notes-template'])
  return {
    vmids: idsIn(params.vmid),
    all: params.all,
    exclude: idsIn(params.exclude),
    storage: params.storage ?? defaults.storage,
    mode: params.mode ?? defaults.mode,
    bwlimit: params.bwlimit,
    notesTemplate: params['notes-template'],
    protected: params.protected,
    fleecingStorage: fleecingStorageIn(params.fleecing),
    lockWait: params.lockwait,
    stopWait: params.stopwait,
    ...(keep === undefined ? {} : { keep }),
    ...(params.remove === false ? { prunes: false } : {}),
  }
}

export function idsIn(list: string | undefined): number[] {
  return splitList(list ?? '').map(Number)
}

/** Fleecing is always on, so only where it goes is of interest. */
function fleecingStorageIn(text: string | undefined): string | undefined {
  const parts = new Map(text?.split(',').map((part) => part.split('=', 2) as [string, string | undefined]))
  for (const name of parts.keys()) {
    if (!['enabled', 'storage', '1', '0'].includes(name))
      throw invalid({ fleecing: `invalid format - unknown key '${name}'` })
  }
  const storage = parts.get('storage')
  if (storage !== undefined && !/^[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]$/.test(storage)) {
    throw invalid({ fleecing: `invalid format - '${storage}' does not look like a valid storage ID` })
  }
  return storage
}
