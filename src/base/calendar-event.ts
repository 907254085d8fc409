/**
 * Calendar events: `mon..fri 02:30`, `*-1,7-1 *:0/15`, `sat`, `daily` – when something that repeats is due.
 *
 * The text is read once into sets of numbers; the next moment is found by walking the calendar of a time zone, not by
 * adding hours, so that 02:30 stays 02:30 across a change of the clocks. A time the clocks skip is due at the moment
 * they are put forward. A time they show twice is due the first time only, unless the event is for every hour.
 * Rejected: cron's five fields, which Proxmox VE's clients do not speak.
 */

/** What the numbers of each field may be; `undefined` stands for all of them. */
type Field = ReadonlySet<number> | undefined

export interface CalendarEvent {
  /** 1 (Monday) to 7. */
  readonly weekdays: Field
  readonly years: Field
  readonly months: Field
  readonly days: Field
  readonly hours: Field
  readonly minutes: Field
  readonly seconds: Field
  /** The text itself names universal time. */
  readonly isUtc: boolean
}

export type ParsedEvent =
  | { readonly ok: true; readonly event: CalendarEvent }
  | { readonly ok: false; readonly complaint: string }

const shorthands: Readonly<Record<string, string>> = {
  minutely: '*:*:00',
  hourly: '*:00:00',
  daily: '*-*-* 00:00:00',
  weekly: 'mon *-*-* 00:00:00',
  monthly: '*-*-01 00:00:00',
  yearly: '*-01-01 00:00:00',
  annually: '*-01-01 00:00:00',
  quarterly: '*-01,04,07,10-01 00:00:00',
  semiannually: '*-01,07-01 00:00:00',
  'semi-annually': '*-01,07-01 00:00:00',
}
const weekdayNames = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const
const [firstYear, lastYear] = [1970, 2199]

class Complaint extends Error {}

export function parseCalendarEvent(text: string): ParsedEvent {
  try {
    return { ok: true, event: read(text) }
  } catch (error) {
    if (error instanceof Complaint) return { ok: false, complaint: error.message }
    throw error
  }
}

function read(text: string): CalendarEvent {
  const lower = text.trim().toLowerCase()
  if (lower === '') throw new Complaint('a calendar event is not empty')
  const words = ((Object.hasOwn(shorthands, lower) ? shorthands[lower] : undefined) ?? lower).split(/\s+/)
  const isUtc = words.at(-1) === 'utc' && words.length > 1
  if (isUtc) words.pop()
  const weekdays = /^[a-z]/.test(words[0] ?? '') ? weekdaysIn(words.shift() ?? '') : undefined
  const date = words[0]?.includes('-') ? words.shift() : undefined
  const time = words.shift()
  if (words.length > 0) throw new Complaint(`'${words.join(' ')}' is left over in '${text.slice(0, 128)}'`)
  return { weekdays, ...dateIn(date), ...timeIn(time), isUtc }
}

function weekdaysIn(text: string): Field {
  const number = (name: string) => {
    const at = weekdayNames.findIndex((short) => name.length >= 3 && `${fullNames[short]}`.startsWith(name))
    if (at < 0) throw new Complaint(`'${name.slice(0, 32)}' is no day of the week`)
    return at + 1
  }
  const days = text.split(',').flatMap((part) => {
    const [first = '', last] = ends(part)
    const [from, to] = [number(first), last === undefined ? number(first) : number(last)]
    if (from > to) throw new Complaint(`'${part}' runs backwards: a week begins on monday`)
    return range(from, to)
  })
  return new Set(days)
}

const fullNames: Readonly<Record<(typeof weekdayNames)[number], string>> = {
  mon: 'monday',
  tue: 'tuesday',
  wed: 'wednesday',
  thu: 'thursday',
  fri: 'friday',
  sat: 'saturday',
  sun: 'sunday',
}

function dateIn(text: string | undefined): Pick<CalendarEvent, 'years' | 'months' | 'days'> {
  if (text === undefined) return { years: undefined, months: undefined, days: undefined }
  const parts = text.split('-')
  if (parts.length > 3) throw new Complaint(`'${text}' is no date: it has too many parts`)
  const [days = '*', months = '*', years = '*'] = parts.toReversed()
  return {
    years: field(years, 'year', firstYear, lastYear),
    months: field(months, 'month', 1, 12),
    days: field(days, 'day', 1, 31),
  }
}

/** A lone number is a minute of every hour, as in systemd's relative; without any time it is midnight. */
function timeIn(text: string | undefined): Pick<CalendarEvent, 'hours' | 'minutes' | 'seconds'> {
  if (text === undefined) return { hours: new Set([0]), minutes: new Set([0]), seconds: new Set([0]) }
  const parts = text.split(':')
  if (parts.length > 3) throw new Complaint(`'${text}' is no time: it has too many parts`)
  const [hours, minutes, seconds] = parts.length === 1 ? ['*', parts[0], '0'] : [parts[0], parts[1], parts[2] ?? '0']
  return {
    hours: field(hours ?? '', 'hour', 0, 23),
    minutes: field(minutes ?? '', 'minute', 0, 59),
    seconds: field(seconds ?? '', 'second', 0, 59),
  }
}

function field(text: string, name: string, minimum: number, maximum: number): Field {
  if (text === '*') return undefined
  const number = (word: string) => {
    const value = /^\d{1,4}$/.test(word) ? Number(word) : NaN
    if (!(value >= minimum && value <= maximum)) {
      throw new Complaint(`'${word.slice(0, 32)}' is no ${name}: it must be a number from ${minimum} to ${maximum}`)
    }
    return value
  }
  const values = text.split(',').flatMap((part) => {
    const [, span = '', step] = /^([^/]*)(?:\/(\d{1,4}))?$/.exec(part) ?? ['', part]
    const every = step === undefined ? 1 : Number(step)
    if (every === 0) throw new Complaint(`'${part}' repeats after nothing`)
    const [first = '', last] = ends(span)
    if (span === '*') return step === undefined ? range(minimum, maximum) : range(minimum, maximum, every)
    const from = number(first)
    const to = last === undefined ? (step === undefined ? from : maximum) : number(last)
    if (from > to) throw new Complaint(`'${part}' runs backwards`)
    return range(from, to, every)
  })
  return new Set(values)
}

function ends(span: string): string[] {
  const parts = span.split('..')
  if (parts.length > 2) throw new Complaint(`'${span}' has more than two ends`)
  return parts
}

function range(from: number, to: number, every = 1): number[] {
  return Array.from({ length: Math.floor((to - from) / every) + 1 }, (_, at) => from + at * every)
}

/**
 * The first moment after `afterSeconds` at which the event is due.
 * @param afterSeconds seconds since 1970
 * @param zone name of a time zone, `Europe/Vienna`
 * @returns seconds since 1970; nothing when it is never due again
 */
export function nextDue(event: CalendarEvent, afterSeconds: number, zone: string): number | undefined {
  const place = event.isUtc ? 'UTC' : zone
  const start = instantOf(Math.floor(afterSeconds)).toZonedDateTimeISO(place)
  for (let day = start.toPlainDate(); day.year <= lastYear; day = nextDay(event, day)) {
    if (!isDay(event, day)) continue
    const due = firstOnDay(event, day, place, Math.floor(afterSeconds))
    if (due !== undefined) return due
  }
  return undefined
}

const instantOf = (seconds: number) => Temporal.Instant.fromEpochMilliseconds(seconds * 1000)
const holds = (values: Field, value: number) => values === undefined || values.has(value)

function isDay({ weekdays, years, months, days }: CalendarEvent, date: Temporal.PlainDate): boolean {
  return (
    holds(years, date.year) && holds(months, date.month) && holds(days, date.day) && holds(weekdays, date.dayOfWeek)
  )
}

function nextDay({ years, months }: CalendarEvent, date: Temporal.PlainDate): Temporal.PlainDate {
  if (!holds(years, date.year)) return new Temporal.PlainDate(date.year + 1, 1, 1)
  if (!holds(months, date.month)) return date.with({ day: 1 }).add({ months: 1 })
  return date.add({ days: 1 })
}

/** Hour by hour, so that a day without a match costs little and one with a change of the clocks is walked as it is lived. */
function firstOnDay(event: CalendarEvent, day: Temporal.PlainDate, zone: string, after: number): number | undefined {
  const moments: number[] = []
  for (let hour = 0; hour < 24; hour += 1) {
    if (!holds(event.hours, hour)) continue
    const latest = Math.max(...momentsOf(day, { hour, minute: 59, second: 59 }, zone))
    if (latest <= after) continue
    const due = firstInHour(event, day, hour, zone, after)
    if (due === undefined) continue
    // A repeated or skipped hour may put a later hour's time first, by no more than its neighbour.
    moments.push(due)
    if (moments.length === 3) break
  }
  return moments.length === 0 ? undefined : Math.min(...moments)
}

function firstInHour(
  event: CalendarEvent,
  day: Temporal.PlainDate,
  hour: number,
  zone: string,
  after: number,
): number | undefined {
  let first: number | undefined
  for (let minute = 0; minute < 60; minute += 1) {
    if (!holds(event.minutes, minute)) continue
    if (Math.max(...momentsOf(day, { hour, minute, second: 59 }, zone)) <= after) continue
    for (let second = 0; second < 60; second += 1) {
      if (!holds(event.seconds, second)) continue
      const [early = NaN, late] = momentsOf(day, { hour, minute, second }, zone)
      const candidates = late !== undefined && event.hours === undefined ? [early, late] : [early]
      const due = candidates.find((moment) => moment > after)
      if (due === undefined) continue
      first = Math.min(first ?? Infinity, due)
      // What follows in this hour is later, unless the hour comes twice.
      if (late === undefined || candidates.length === 1) return first
      if (due === early) break
    }
  }
  return first
}

interface TimeOfDay {
  readonly hour: number
  readonly minute: number
  readonly second: number
}

/** When a clock on the wall shows this: once; twice when clocks are put back; where they skip it, when they are put forward. */
function momentsOf(day: Temporal.PlainDate, time: TimeOfDay, zone: string): number[] {
  const local = day.toPlainDateTime(time)
  const [earlier, later] = (['earlier', 'later'] as const).map((disambiguation) =>
    local.toZonedDateTime(zone, { disambiguation }),
  )
  if (!earlier || !later) return []
  const [early, late] = [earlier, later].map((moment) => Math.floor(moment.epochMilliseconds / 1000))
  if (early === undefined || late === undefined) return []
  if (early === late) return [early]
  if (earlier.toPlainDateTime().equals(local)) return [early, late]
  const change = earlier.getTimeZoneTransition('next')
  return [change === null ? late : Math.floor(change.epochMilliseconds / 1000)]
}
