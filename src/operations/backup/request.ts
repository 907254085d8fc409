/**
 * From the parameters of `POST /nodes/{node}/vzdump` to what the backup operation does. What would change
 * the meaning of a backup and is not done here is refused by name; what merely tunes other programs is
 * taken, has nothing to act on, and the log says so.
 */
import { invalid } from '#base/fault.ts'
import { readRetention } from '#base/retention.ts'
import { splitList } from '#base/schema/formats.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { fleecingFormat, performanceFormat } from './formats.ts'
import type { BackupMode } from './half.ts'
import { checkNotesTemplate } from './notes-template.ts'
import type { Notify } from './report.ts'
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
  readonly performance?: string | undefined
  readonly script?: string | undefined
  readonly ionice?: number | undefined
  readonly 'exclude-path'?: readonly string[] | undefined
  readonly stdexcludes?: boolean | undefined
  readonly 'job-id'?: string | undefined
  readonly mailto?: string | undefined
  readonly mailnotification?: 'always' | 'failure' | undefined
  readonly remove?: boolean | undefined
  readonly [other: string]: unknown
}

export const defaults = {
  mode: 'snapshot',
  storage: 'local',
  bwlimit: 0,
  ionice: 7,
  lockwait: 180,
  stopwait: 10,
} as const

/** Values that mean the same as leaving the parameter out. */
const harmless: Readonly<Record<string, readonly unknown[]>> = {
  stdout: [false],
  stop: [false],
}

const refusals: Readonly<Record<string, string>> = {
  dumpdir: 'backups go to the datastore of a storage: name it with storage',
  stdout: 'a backup cannot be written to standard output by this release',
  stop: 'stop a running backup with the task it runs in',
  pool: 'name the guests: a pool stands for those in it when it is asked for',
}

/** Taken, and told in the log where they ask for something else than what is done. */
const withoutEffect: Readonly<Record<string, string>> = {
  compress: 'backups are always compressed by zstd, chunk by chunk',
  zstd: 'backups are compressed by one thread',
  pigz: 'backups are compressed by zstd',
  'pbs-change-detection-mode': 'of a container every file is looked at, and read where anything about it has changed',
  tmpdir: 'nothing is kept in temporary files',
  quiet: 'the log of a task is always written',
}
const usual: Readonly<Record<string, readonly unknown[]>> = {
  compress: ['zstd', '1'],
  zstd: [0, 1],
  pigz: [0],
  quiet: [false],
}

/** More readers take memory and make nothing faster. */
const readersMaximum = 32
const recipientsMaximum = 50
const patternsMaximum = 1_000

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
  if (params.script !== undefined && !/^\/[^\0\n]+$/.test(params.script)) {
    errors.script = 'invalid format - name a file of this node by its absolute path'
  }
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
    fleecingStorage: storageIn(params.fleecing),
    readsAhead: readersIn(params.performance),
    lockWait: params.lockwait,
    stopWait: params.stopwait,
    excludePaths: excludedIn(params),
    excludesTemporary: params.stdexcludes,
    jobId: params['job-id'],
    script: params.script,
    ioPriority: params.ionice ?? defaults.ionice,
    notify: notifyIn(params),
    remarks: remarksOn(params),
    ...(keep === undefined ? {} : { keep }),
    ...(params.remove === false ? { prunes: false } : {}),
  }
}

export function idsIn(list: string | undefined): number[] {
  return splitList(list ?? '').map(Number)
}

/** @throws Fault `invalid` for what would exclude everything, or nothing */
function excludedIn({ 'exclude-path': paths }: VzdumpParams): readonly string[] | undefined {
  if (paths && paths.length > patternsMaximum) {
    throw invalid({ 'exclude-path': `there are more than ${patternsMaximum} patterns` })
  }
  const wrong = paths?.find(
    (path) =>
      !/^\/?[^/]/.test(path) || path.includes('\0') || path.split('/').some((part) => part === '.' || part === '..'),
  )
  if (wrong !== undefined) {
    throw invalid({ 'exclude-path': `'${wrong.slice(0, 80)}' is no path or pattern, such as /var/cache or *.tmp` })
  }
  return paths
}

/** Fleecing is always on, so only where it goes is of interest. */
function storageIn(fleecing: string | undefined): string | undefined {
  const { storage } = fleecing === undefined ? {} : readPropertyString(fleecingFormat, fleecing, 'fleecing')
  return storage === undefined ? undefined : String(storage)
}

function readersIn(performance: string | undefined): number | undefined {
  if (performance === undefined) return undefined
  const { 'max-workers': workers } = readPropertyString(performanceFormat, performance, 'performance')
  return workers === undefined ? undefined : Math.min(readersMaximum, Number(workers))
}

/** Nothing when nobody is named. @throws Fault `invalid` */
export function notifyIn({
  mailto,
  mailnotification,
}: Pick<VzdumpParams, 'mailto' | 'mailnotification'>): Notify | undefined {
  const mailTo = splitList(mailto ?? '')
  if (mailTo.length === 0) return undefined
  if (mailTo.length > recipientsMaximum) throw invalid({ mailto: `a mail goes to at most ${recipientsMaximum} people` })
  // What the mail program could take for an option, or a header for its end, is no address.
  const wrong = mailTo.find((one) => !/^[\w.+][\w.+-]{0,63}@[A-Za-z0-9][\w.-]{0,252}$/.test(one))
  if (wrong !== undefined) throw invalid({ mailto: `invalid format - '${wrong.slice(0, 80)}' is no mail address` })
  return { mailTo, on: mailnotification ?? 'always' }
}

function remarksOn(params: VzdumpParams): string[] {
  const remarks = Object.entries(withoutEffect).flatMap(([name, why]) => {
    const value = params[name]
    if (value === undefined || usual[name]?.includes(value) || (Array.isArray(value) && value.length === 0)) return []
    return [`${name} has no effect: ${why}`]
  })
  const mode = params['notification-mode']
  if (mode === 'notification-system') remarks.push('this release has no notification system: name people with mailto')
  return remarks
}
