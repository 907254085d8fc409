/** Parameters of a backup job: those of a backup, and when it runs. */
import {
  boolean,
  enumOf,
  integer,
  optional,
  array,
  type PropertyFormat,
  propertyString,
  string,
} from '#base/schema/schema.ts'
import { nodeName, storageId } from '#base/schema/standard.ts'
import { retentionFormat } from '#base/retention.ts'
import { fleecingFormat, performanceFormat } from '#operations/backup/formats.ts'

/** Property strings that are shown as objects. */
export const asProperties: Readonly<Record<string, PropertyFormat>> = {
  fleecing: fleecingFormat,
  performance: performanceFormat,
  'prune-backups': retentionFormat,
}

const flag = (description: string, standard: boolean) => optional(boolean({ description, default: standard }))
const text = (description: string, maxLength: number) => optional(string({ description, maxLength }))
const guests = (description: string) => optional(string({ description, format: 'pve-vmid-list', maxLength: 16_384 }))
const minutes = (description: string, standard: number) =>
  optional(integer({ description, minimum: 0, maximum: 100_000, default: standard }))

export const jobParams = {
  schedule: optional(
    string({
      description: 'When it runs, as a calendar event: `mon..fri 02:30`.',
      format: 'pve-calendar-event',
      maxLength: 128,
    }),
  ),
  starttime: optional(
    string({ description: 'Older spelling of the schedule.', pattern: /\d{1,2}:\d{1,2}/, maxLength: 5 }),
  ),
  dow: optional(
    string({
      description: 'Days of the week of the older spelling.',
      format: 'pve-day-of-week-list',
      maxLength: 64,
      requires: 'starttime',
    }),
  ),
  enabled: flag('It runs by itself.', true),
  comment: text('Note.', 512),
  'repeat-missed': flag('Make up for a run that was missed, once.', false),
  node: optional(nodeName),
  vmid: guests('Guests it covers.'),
  all: flag('It covers every guest there is when it runs.', false),
  exclude: guests('Guests left out of all, or of the pool.'),
  pool: text('It covers the guests in this pool when it runs.', 255),
  storage: optional(storageId),
  mode: optional(
    enumOf(['snapshot', 'suspend', 'stop'], {
      description: 'Guests go on meanwhile, halt for a moment, or are shut down.',
      default: 'snapshot',
    }),
  ),
  bwlimit: optional(
    integer({ description: 'KiB per second at most; 0 is no limit.', minimum: 0, maximum: 2 ** 40, default: 0 }),
  ),
  compress: optional(
    enumOf(['0', '1', 'gzip', 'lzo', 'zstd'], { description: 'Backups are always compressed by zstd.', default: '0' }),
  ),
  'notes-template': optional(
    string({
      description: 'Notes of each backup, with {{guestname}} and the like.',
      maxLength: 1024,
      requires: 'storage',
    }),
  ),
  protected: optional(boolean({ description: 'Refuse to remove the backups.', requires: 'storage' })),
  fleecing: optional(
    propertyString(fleecingFormat, { description: 'Where overwritten blocks are kept meanwhile.', maxLength: 256 }),
  ),
  performance: optional(
    propertyString(performanceFormat, { description: 'max-workers: reads under way at once.', maxLength: 256 }),
  ),
  'prune-backups': optional(
    propertyString(retentionFormat, { description: 'Which backups are kept.', maxLength: 1024, default: 'keep-all=1' }),
  ),
  lockwait: minutes('Minutes to wait for a guest another task holds.', 180),
  stopwait: minutes('Minutes a guest may take to shut down.', 10),
  'exclude-path': optional(
    array(string({ maxLength: 4096 }), {
      description:
        'Of containers: leave these paths out. Patterns; with a leading slash of the root, else of every folder.',
    }),
  ),
  stdexcludes: flag('Of containers: leave temporary files out.', true),
  'pbs-change-detection-mode': optional(
    enumOf(['legacy', 'data', 'metadata'], {
      description: 'Without effect: a file is read where anything about it has changed.',
    }),
  ),
  ionice: optional(
    integer({ description: 'Rank among those who want the disks; 8 is last.', minimum: 0, maximum: 8, default: 7 }),
  ),
  pigz: optional(integer({ description: 'Without effect.', minimum: 0, maximum: 1024, default: 0 })),
  zstd: optional(integer({ description: 'Without effect.', minimum: 0, maximum: 1024, default: 1 })),
  quiet: flag('Without effect.', false),
  remove: flag('Prune older backups.', true),
  mailnotification: optional(
    enumOf(['always', 'failure'], {
      description: 'When a mail goes to mailto; an alarm or a hint about a guest counts as a failure.',
      default: 'always',
    }),
  ),
  'notification-mode': optional(
    enumOf(['auto', 'legacy-sendmail', 'notification-system'], { description: 'Without effect.', default: 'auto' }),
  ),
  mailto: optional(
    string({
      description: 'Who hears how it went, by the mail system of the node.',
      format: 'email-or-username-list',
      maxLength: 4096,
    }),
  ),
  stop: flag('Refused.', false),
  tmpdir: text('Without effect.', 4096),
  dumpdir: text('Refused: name a storage.', 4096),
  script: text('Program that hears of every phase; for root alone.', 4096),
} as const

/** Of those, what changes nothing here or is refused. */
export const withoutEffect = [
  'compress', 'zstd', 'pigz', 'quiet', 'remove', 'stop', 'tmpdir', 'dumpdir', 'notification-mode',
  'pbs-change-detection-mode',
] as const // prettier-ignore
