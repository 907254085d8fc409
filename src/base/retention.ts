/**
 * Which backups outlast pruning: `keep-last=3,keep-daily=7,keep-monthly=12`.
 *
 * The options are taken in a fixed order, from `keep-last` to `keep-yearly`. Each looks at what no option before it has
 * decided, newest first: of each period the newest is kept and the rest goes, until as many periods are kept as it says.
 * A period of which a backup is kept already is passed over. What nobody has decided in the end goes. Periods are those
 * of the calendar where the node is; weeks begin on Monday.
 */
import { invalid } from './fault.ts'
import { readPropertyString } from './schema/property-string.ts'
import { boolean, integer, optional, type PropertyFormat } from './schema/schema.ts'

const count = (description: string) => ({
  schema: optional(integer({ description, minimum: 0, maximum: 1_000_000 })),
})

export const retentionFormat: PropertyFormat = {
  'keep-all': { schema: optional(boolean({ description: 'Keep everything.' })) },
  'keep-last': count('How many of the latest.'),
  'keep-hourly': count('Of how many hours the last one.'),
  'keep-daily': count('Of how many days the last one.'),
  'keep-weekly': count('Of how many weeks the last one.'),
  'keep-monthly': count('Of how many months the last one.'),
  'keep-yearly': count('Of how many years the last one.'),
}

export const keepOptions = [
  'keep-last',
  'keep-hourly',
  'keep-daily',
  'keep-weekly',
  'keep-monthly',
  'keep-yearly',
] as const
export type KeepOption = (typeof keepOptions)[number]

/** How many periods of each kind are kept; none of any kind means that everything is. */
export type Retention = Readonly<Partial<Record<KeepOption, number>>>

/** @throws Fault `invalid` naming the field */
export function readRetention(text: string, field = 'prune-backups'): Retention {
  const values = readPropertyString(retentionFormat, text, field)
  const counts = keepOptions.flatMap((name): [KeepOption, number][] => {
    const value = Number(values[name] ?? 0)
    return value > 0 ? [[name, value]] : []
  })
  if (values['keep-all'] === true) {
    if (counts.length === 0) return {}
    throw invalid({ [field]: "invalid format - 'keep-all' cannot be set together with other options" })
  }
  return Object.fromEntries(counts)
}

export function keepsAll(retention: Retention): boolean {
  return keepOptions.every((name) => (retention[name] ?? 0) === 0)
}

export interface Dated {
  /** Seconds since 1970. */
  readonly ctime: number
}

/** Those that are kept. */
export function kept<T extends Dated>(items: readonly T[], retention: Retention, zone: string): Set<T> {
  if (keepsAll(retention)) return new Set(items)
  const newestFirst = items
    .map((item, at) => ({ item, at, ...dateOf(item.ctime, zone) }))
    .toSorted((a, b) => b.item.ctime - a.item.ctime || a.at - b.at)
  const decided = new Map<(typeof newestFirst)[number], 'keep' | 'remove'>()
  for (const name of keepOptions) {
    const period = periods[name]
    const before = new Set([...decided].filter(([, mark]) => mark === 'keep').map(([one]) => period(one)))
    const now = new Set<string>()
    for (const one of newestFirst) {
      const key = period(one)
      if (decided.has(one) || before.has(key)) continue
      const isNew = !now.has(key)
      if (isNew && now.size >= (retention[name] ?? 0)) break
      now.add(key)
      decided.set(one, isNew ? 'keep' : 'remove')
    }
  }
  return new Set([...decided].filter(([, mark]) => mark === 'keep').map(([{ item }]) => item))
}

interface OnTheCalendar {
  /** Place in the list. */
  readonly at: number
  readonly date: Temporal.PlainDateTime
}

const periods: Readonly<Record<KeepOption, (one: OnTheCalendar) => string>> = {
  'keep-last': ({ at }) => `${at}`,
  'keep-hourly': ({ date }) => `${date.toPlainDate().toString()} ${date.hour}`,
  'keep-daily': ({ date }) => date.toPlainDate().toString(),
  'keep-weekly': ({ date }) => `${date.yearOfWeek}-${date.weekOfYear}`,
  'keep-monthly': ({ date }) => `${date.year}-${date.month}`,
  'keep-yearly': ({ date }) => `${date.year}`,
}

function dateOf(ctime: number, zone: string): { date: Temporal.PlainDateTime } {
  return {
    date: Temporal.Instant.fromEpochMilliseconds(ctime * 1000)
      .toZonedDateTimeISO(zone)
      .toPlainDateTime(),
  }
}
