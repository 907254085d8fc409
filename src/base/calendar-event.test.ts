import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type CalendarEvent, nextDue, parseCalendarEvent } from './calendar-event.ts'

const at = (text: string) => Date.parse(text) / 1000
const shown = (due: number | undefined) => (due === undefined ? 'never' : new Date(due * 1000).toISOString())

function eventOf(text: string): CalendarEvent {
  const parsed = parseCalendarEvent(text)
  assert.ok(parsed.ok, `${text}: ${parsed.ok ? '' : parsed.complaint}`)
  return parsed.event
}

/** The next `count` moments. */
function dues(text: string, after: string, zone = 'UTC', count = 1): string[] {
  const event = eventOf(text)
  const found: string[] = []
  let last: number | undefined = at(after)
  for (let number = 0; number < count && last !== undefined; number += 1) {
    last = nextDue(event, last, zone)
    found.push(shown(last))
  }
  return found
}

test('a time of day comes every day, a minute every hour, a day at midnight', () => {
  const friday = '2026-11-20T10:07:30Z'
  const expected: readonly [string, string][] = [
    ['02:30', '2026-11-21T02:30:00.000Z'],
    ['*/15', '2026-11-20T10:15:00.000Z'],
    ['7', '2026-11-20T11:07:00.000Z'],
    ['8..17,22:0/15', '2026-11-20T10:15:00.000Z'],
    ['sat', '2026-11-21T00:00:00.000Z'],
    ['sat 03:00', '2026-11-21T03:00:00.000Z'],
    ['mon..fri 02:30', '2026-11-23T02:30:00.000Z'],
    ['Mon,Wed 9:00', '2026-11-23T09:00:00.000Z'],
    ['*:*:00', '2026-11-20T10:08:00.000Z'],
    ['*-*-31', '2026-12-31T00:00:00.000Z'],
    ['2-29', '2028-02-29T00:00:00.000Z'],
    ['mon 2-29', '2044-02-29T00:00:00.000Z'],
    ['2027-1,7-1 6:00', '2027-01-01T06:00:00.000Z'],
    ['daily', '2026-11-21T00:00:00.000Z'],
    ['hourly', '2026-11-20T11:00:00.000Z'],
    ['weekly', '2026-11-23T00:00:00.000Z'],
    ['monthly', '2026-12-01T00:00:00.000Z'],
    ['quarterly', '2027-01-01T00:00:00.000Z'],
    ['2-31', 'never'],
    ['2020-*-*', 'never'],
  ]
  for (const [text, due] of expected) assert.deepEqual([text, ...dues(text, friday)], [text, due])
})

test('times are those of the time zone, unless the text says otherwise', () => {
  assert.deepEqual(dues('02:30', '2026-07-01T00:00:00Z', 'Europe/Vienna'), ['2026-07-01T00:30:00.000Z'])
  assert.deepEqual(dues('02:30', '2026-07-01T00:00:00Z', 'Asia/Kathmandu'), ['2026-07-01T20:45:00.000Z'])
  assert.deepEqual(dues('02:30 UTC', '2026-07-01T00:00:00Z', 'Europe/Vienna'), ['2026-07-01T02:30:00.000Z'])
})

test('what the clocks skip happens when they are put forward; the day is not left out', () => {
  assert.deepEqual(dues('02:30', '2026-03-28T12:00:00Z', 'Europe/Vienna', 2), [
    '2026-03-29T01:00:00.000Z',
    '2026-03-30T00:30:00.000Z',
  ])
})

test('what the clocks show twice happens once, but every hour is every hour', () => {
  assert.deepEqual(dues('02:30', '2026-10-24T12:00:00Z', 'Europe/Vienna', 2), [
    '2026-10-25T00:30:00.000Z',
    '2026-10-26T01:30:00.000Z',
  ])
  assert.deepEqual(dues('*/30', '2026-10-25T00:00:00Z', 'Europe/Vienna', 4), [
    '2026-10-25T00:30:00.000Z',
    '2026-10-25T01:00:00.000Z',
    '2026-10-25T01:30:00.000Z',
    '2026-10-25T02:00:00.000Z',
  ])
})

test('what is no calendar event is refused with its reason', () => {
  for (const text of [
    '',
    'x',
    '25:00',
    '*/0',
    '5..3',
    '12:00 noon',
    '1-2-3-4',
    'sun..mon',
    '13-1',
    '1:2:3:4',
    'mo 1:00',
    '::',
    '*-',
    '1..2..',
    '__proto__',
    'constructor',
  ]) {
    const parsed = parseCalendarEvent(text)
    assert.ok(!parsed.ok && parsed.complaint.length > 5, `'${text}' was taken`)
  }
})

test('no text makes the parser fail otherwise than by a complaint', () => {
  const piece = fc.constantFrom('mon', '..', ',', '*', '/', '-', ':', ' ', '0', '15', '31', 'utc', 'daily', '99')
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(piece).map((all) => all.join('')),
      ),
      (text) => {
        const parsed = parseCalendarEvent(text)
        return parsed.ok || parsed.complaint !== ''
      },
    ),
  )
})

const someField = (minimum: number, maximum: number) => {
  const value = fc.integer({ min: minimum, max: maximum })
  return fc.oneof(
    fc.constant('*'),
    fc.array(value, { minLength: 1, maxLength: 3 }).map((all) => all.join(',')),
    fc.tuple(value, fc.integer({ min: 1, max: 30 })).map(([from, step]) => `${from}/${step}`),
    fc.tuple(value, value).map((pair) => `${Math.min(...pair)}..${Math.max(...pair)}`),
  )
}
const someDays = fc.oneof(fc.constant(''), fc.constantFrom('mon ', 'sat,sun ', 'tue..thu '))
const zones = ['UTC', 'Europe/Vienna', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu']

test('the next moment is the first whose clock on the wall fits, as found by looking at every minute', () => {
  fc.assert(
    fc.property(
      fc.tuple(someDays, someField(0, 23), someField(0, 59)),
      fc.integer({ min: at('2026-01-01T00:00:00Z'), max: at('2027-01-01T00:00:00Z') }),
      fc.constantFrom(...zones),
      ([days, hours, minutes], after, zone) => {
        const event = eventOf(`${days}${hours}:${minutes}`)
        const due = nextDue(event, after, zone) ?? NaN
        assert.ok(due > after)
        // Skipped and repeated times follow rules of their own.
        const isPlain = (moment: number) => !isNearChange(moment, zone)
        for (let minute = Math.ceil((after + 1) / 60) * 60; minute < Math.min(due, after + 86_400); minute += 60) {
          if (isPlain(minute)) assert.ok(!fits(event, minute, zone), `${shown(minute)} fits before ${shown(due)}`)
        }
        if (isPlain(due)) assert.ok(fits(event, due, zone), `${shown(due)} does not fit`)
      },
    ),
    { numRuns: 300 },
  )
})

const fits = ({ weekdays, hours, minutes }: CalendarEvent, moment: number, zone: string) => {
  const local = Temporal.Instant.fromEpochMilliseconds(moment * 1000).toZonedDateTimeISO(zone)
  const holds = (values: ReadonlySet<number> | undefined, value: number) => values === undefined || values.has(value)
  return holds(weekdays, local.dayOfWeek) && holds(hours, local.hour) && holds(minutes, local.minute)
}

function isNearChange(moment: number, zone: string): boolean {
  const offset = (seconds: number) =>
    Temporal.Instant.fromEpochMilliseconds(seconds * 1000).toZonedDateTimeISO(zone).offsetNanoseconds
  return offset(moment - 7_200) !== offset(moment + 7_200)
}
