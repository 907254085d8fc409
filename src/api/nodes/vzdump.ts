/** `/nodes/{node}/vzdump`: backups of guests. */
import { invalid, isFault, missing } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { retentionFormat } from '#base/retention.ts'
import {
  array,
  boolean,
  enumOf,
  integer,
  object,
  optional,
  propertyString,
  refine,
  string,
} from '#base/schema/schema.ts'
import { splitList } from '#base/schema/formats.ts'
import { nodeName, storageId, upid, volumeId } from '#base/schema/standard.ts'
import { isForeignArchive, isOfContainer } from '#operations/backup/archive-file.ts'
import { fleecingFormat, performanceFormat } from '#operations/backup/formats.ts'
import { readGuestConf } from '#operations/backup/guest-conf.ts'
import { backupRequest, defaults, idsIn, type VzdumpParams } from '#operations/backup/request.ts'
import { containerConfText } from '#operations/backup/kept-archive.ts'
import { foreignConfText } from '#operations/backup/restore-archive.ts'
import { backupGuests } from '#operations/backup/run.ts'
import { any, anyone, check } from '#rest/endpoint.ts'
import { type Call, endpoint } from '../call.ts'
import { toBackUp, toReadBackup } from './backup-rights.ts'

const vmidList = (description: string) => string({ description, format: 'pve-vmid-list', maxLength: 16_384 })
const text = (description: string, maxLength: number) => optional(string({ description, maxLength }))
const minutes = (description: string, standard: number) =>
  optional(integer({ description, minimum: 0, maximum: 100_000, default: standard }))

/** What decides about the backup. */
const decisive = {
  vmid: optional(vmidList('Guests to back up.')),
  all: optional(boolean({ description: 'Back up every guest of the node.', default: false })),
  pool: text('Back up the guests in this pool.', 255),
  exclude: optional(vmidList('Guests left out of all, or of the pool.')),
  storage: optional(refine(storageId, { description: 'Storage the backup goes to; `local` when absent.' })),
  mode: optional(
    enumOf(['snapshot', 'suspend', 'stop'], {
      description: 'Go on meanwhile, halt for the moment that is kept, or shut down.',
      default: defaults.mode,
    }),
  ),
  bwlimit: optional(
    integer({ description: 'KiB per second at most; 0 is no limit.', minimum: 0, maximum: 2 ** 40, default: 0 }),
  ),
  'notes-template': optional(
    string({
      description: 'Notes; {{guestname}}, {{vmid}}, {{node}} and {{cluster}} are replaced.',
      maxLength: 1024,
      requires: 'storage',
    }),
  ),
  protected: optional(boolean({ description: 'Refuse to remove the backup.', requires: 'storage' })),
  fleecing: optional(
    propertyString(fleecingFormat, { description: 'Where overwritten blocks are kept meanwhile.', maxLength: 256 }),
  ),
  performance: optional(
    propertyString(performanceFormat, { description: 'max-workers: reads under way at once.', maxLength: 256 }),
  ),
  ionice: optional(
    integer({
      description: 'Rank among those who want the disks; 8 is last.',
      minimum: 0,
      maximum: 8,
      default: defaults.ionice,
    }),
  ),
  'exclude-path': optional(
    array(string({ maxLength: 4096 }), {
      description:
        'Of containers: leave these paths out. Patterns; with a leading slash of the root, else of every folder.',
    }),
  ),
  stdexcludes: optional(boolean({ description: 'Of containers: leave temporary files out.', default: true })),
  lockwait: minutes('Minutes to wait for a guest another task holds.', defaults.lockwait),
  stopwait: minutes('Minutes a guest may take to shut down.', defaults.stopwait),
  'job-id': optional(string({ description: 'Backup job it is a run of.', pattern: /\S+/, maxLength: 50 })),
  script: text('Program that hears of every phase; for root alone.', 4096),
  mailto: optional(
    string({
      description: 'Who hears how it went, by the mail system of the node.',
      format: 'email-or-username-list',
      maxLength: 4096,
    }),
  ),
  mailnotification: optional(
    enumOf(['always', 'failure'], {
      description: 'When a mail goes to mailto; an alarm or a hint about a guest counts as a failure.',
      default: 'always',
    }),
  ),
  'prune-backups': optional(
    propertyString(retentionFormat, {
      description: 'Which backups of a guest are kept once it has a new one; what the storage says when absent.',
      maxLength: 1024,
      default: 'keep-all=1',
    }),
  ),
  remove: optional(boolean({ description: 'Prune older backups.', default: true })),
} as const

/** Taken, because they change nothing here: the format and its compression are our own. The log says so. */
const harmless = {
  compress: optional(
    enumOf(['0', '1', 'gzip', 'lzo', 'zstd'], { description: 'Backups are always compressed by zstd.', default: '0' }),
  ),
  zstd: optional(integer({ description: 'Without effect.', minimum: 0, maximum: 1024, default: 1 })),
  pigz: optional(integer({ description: 'Without effect.', minimum: 0, maximum: 1024, default: 0 })),
  'pbs-change-detection-mode': optional(
    enumOf(['legacy', 'data', 'metadata'], {
      description: 'Without effect: a file is read where anything about it has changed.',
    }),
  ),
  'notification-mode': optional(
    enumOf(['auto', 'legacy-sendmail', 'notification-system'], {
      description: 'Mails are all there is.',
      default: 'auto',
    }),
  ),
  quiet: optional(boolean({ description: 'Without effect.', default: false })),
  tmpdir: text('Without effect; for root alone.', 4096),
} as const

/** Refused unless they say what is done anyway. */
const refused = {
  dumpdir: text('Refused: name a storage.', 4096),
  stdout: optional(boolean({ description: 'Refused.' })),
  stop: optional(boolean({ description: 'Refused: stop the task.', default: false })),
} as const

export const vzdumpEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/vzdump',
    description: 'Back up guests, running or stopped.',
    proxyTo: 'node',
    params: { node: nodeName, ...decisive, ...harmless, ...refused },
    permission: anyone,
    alsoNeeds: {
      says: 'VM.Backup on each guest (on /vms for all, on the pool for those in it); Datastore.AllocateSpace on the storage and on that of fleecing; Datastore.Allocate on the storage to say which backups are kept',
      of: toBackUp,
    },
    returns: upid,
    cli: {
      command: ['backup', 'now'],
      positional: ['vmid'],
      examples: [
        'backup now 100 --storage local',
        "backup now 100,101 --storage local --notes-template '{{guestname}} before the upgrade' --protected 1",
        'backup now --all 1 --exclude 900 --storage local',
      ],
      unlisted: [...Object.keys(harmless), ...Object.keys(refused)],
    },
    async handle(params, call) {
      requireRootFor(['script', 'tmpdir', 'dumpdir'], params, call)
      const mailto = await addresses(params.mailto, call)
      return call.start(backupGuests, backupRequest(await withoutPool({ ...params, mailto }, call)))
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/vzdump/defaults',
    description: 'What a backup does where nothing else is asked for.',
    proxyTo: 'node',
    params: { node: nodeName, storage: optional(storageId) },
    permission: anyone,
    alsoNeeds: {
      says: 'Datastore.Audit or Datastore.AllocateSpace on the storage',
      of: ({ storage = defaults.storage }) => [
        any(...['Datastore.Audit', 'Datastore.AllocateSpace'].map((right) => check(right, `/storage/${storage}`))),
      ],
    },
    returns: object({
      mode: string({ description: 'Mode of backup.' }),
      storage: string({ description: 'Storage backups go to.' }),
      bwlimit: integer({ description: 'KiB per second at most; 0 is no limit.' }),
      lockwait: integer({ description: 'Minutes to wait for a lock.' }),
      stopwait: integer({ description: 'Minutes a guest may take to shut down.' }),
      ionice: integer({ description: 'Rank among those who want the disks.' }),
      compress: string({ description: 'How backups are compressed.' }),
      'prune-backups': string({ description: 'Which backups are kept.' }),
    }),
    async handle({ storage = defaults.storage }, { services }) {
      const config = (await services.storage.list()).find(({ name }) => name === storage)
      return { ...defaults, storage, compress: 'zstd', 'prune-backups': config?.pruneBackups ?? 'keep-all=1' }
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/vzdump/extractconfig',
    description: 'Configuration of the guest as it is in a backup.',
    proxyTo: 'node',
    params: { node: nodeName, volume: volumeId },
    permission: anyone,
    alsoNeeds: {
      says: 'Datastore.Allocate on the storage, or Datastore.AllocateSpace there with VM.Backup on the guest',
      of: ({ volume }) => toReadBackup(volume),
    },
    returns: string({ description: 'One option a line.' }),
    cli: { command: ['backup', 'config'], positional: ['volume'] },
    async handle({ volume }, { services, signal }) {
      if (!isForeignArchive(volume)) return readGuestConf(services.backup, asVolumeId(volume))
      if (isOfContainer(volume)) return containerConfText(services.storage, volume, signal)
      return foreignConfText(services.storage, volume)
    },
  }),
]

/** The guests of a pool are named one by one: who is in it when the backup is asked for is in the backup. */
async function withoutPool({ pool, ...params }: VzdumpParams & { pool?: string | undefined }, { services }: Call) {
  if (pool === undefined) return params
  const clash = (['vmid', 'all'] as const).find((name) => params[name] !== undefined && params[name] !== false)
  if (clash !== undefined) throw invalid({ pool: `option conflicts with option '${clash}'` })
  const excluded = idsIn(params.exclude)
  const vmids = (await services.pools.get(pool)).vms.filter((vmid) => !excluded.includes(vmid))
  if (vmids.length === 0) throw missing('a guest to back up in pool', pool)
  return { ...params, exclude: undefined, vmid: vmids.join(',') }
}

/** What reaches past guests and storages is for root in person. @throws Fault in the words clients know */
function requireRootFor(names: readonly string[], params: VzdumpParams, { who, services }: Call): void {
  if (who.token === undefined && services.access.isRoot(who)) return
  const given = names.filter((name) => params[name] !== undefined)
  if (given.length === 0) return
  throw invalid(Object.fromEntries(given.map((name) => [name, 'Only root may set this option.'])))
}

/** Users are reached under the address they have. */
async function addresses(mailto: string | undefined, { services }: Call): Promise<string | undefined> {
  if (mailto === undefined) return undefined
  const found = splitList(mailto).map(async (name) => {
    const user = await services.access.user(name).catch((fault: unknown) => {
      if (isFault(fault)) return undefined
      throw fault
    })
    return user?.email || name
  })
  return (await Promise.all(found)).join(',')
}
