/**
 * systemd: units and the journal. Where it does not run (a container, a rescue system) that is said, instead of
 * services that seem dead.
 */
import { stat } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import type { Host } from '../host.ts'

export interface UnitState {
  readonly unit: string
  readonly description: string
  /** `active`, `inactive`, `failed`, … */
  readonly activeState: string
  /** `running`, `exited`, `dead`, … */
  readonly subState: string
  /** `enabled`, `disabled`, `static`, …; `not-found` for a unit that is not there. */
  readonly fileState: string
}

export async function isSystemdRunning(): Promise<boolean> {
  // What sd_booted(3) looks at.
  return stat('/run/systemd/system').then(
    (facts) => facts.isDirectory(),
    () => false,
  )
}

/** @throws Fault `unavailable` where systemd does not run */
export async function requireSystemd(): Promise<void> {
  if (await isSystemdRunning()) return
  throw new Fault('unavailable', 'systemd does not run on this machine', {
    remedy: 'Manage the service with what started it.',
  })
}

/** State of each unit, in the order asked for. */
export async function unitStates(host: Host, units: readonly string[]): Promise<UnitState[]> {
  const properties = 'Id,Description,LoadState,ActiveState,SubState,UnitFileState'
  const { stdout } = await host.run(['systemctl', 'show', `--property=${properties}`, '--', ...units])
  const blocks = stdout.split(/\n\n+/).filter((block) => block.trim() !== '')
  return units.map((unit, at) => parseUnit(unit, blocks[at] ?? ''))
}

/** Reads one block of `systemctl show`. */
export function parseUnit(unit: string, text: string): UnitState {
  const values = new Map(
    text.split('\n').map((line) => [line.split('=', 1)[0] ?? '', line.slice(line.indexOf('=') + 1)]),
  )
  const isMissing = values.get('LoadState') === 'not-found'
  return {
    unit,
    description: values.get('Description') ?? unit,
    activeState: values.get('ActiveState') || 'unknown',
    subState: values.get('SubState') || 'unknown',
    fileState: isMissing ? 'not-found' : values.get('UnitFileState') || 'unknown',
  }
}

export type UnitAct = 'start' | 'stop' | 'restart' | 'reload'

/** Waits until it is done. @throws Fault `failed` with systemd's own words */
export async function actOnUnit(host: Host, act: UnitAct, unit: string, signal?: AbortSignal): Promise<void> {
  await host.run(['systemctl', act, '--', unit], { timeoutMs: 300_000, signal })
}

export interface JournalQuery {
  /** Seconds since 1970, or `YYYY-MM-DD HH:MM:SS`. */
  readonly since?: number | string | undefined
  readonly until?: number | string | undefined
  readonly unit?: string | undefined
  /** The newest so many. */
  readonly newest?: number | undefined
  readonly afterCursor?: string | undefined
  /** The last line of the page, where it is reached. */
  readonly beforeCursor?: string | undefined
}

export interface JournalPage {
  readonly lines: readonly string[]
  readonly firstCursor?: string
  readonly lastCursor?: string
}

const mostLines = 50_000

/** Lines of the journal, oldest first, `Nov 20 10:00:00 host program[pid]: text`. Empty where nothing was ever written. */
export async function journal(host: Host, query: JournalQuery, signal?: AbortSignal): Promise<JournalPage> {
  const { since, until, unit, newest, afterCursor, beforeCursor } = query
  const time = (value: number | string) => (typeof value === 'number' ? `@${value}` : value)
  const { stdout } = await host.run(
    [
      'journalctl',
      '--no-pager',
      '--quiet',
      '--output=json',
      '--output-fields=_HOSTNAME,SYSLOG_IDENTIFIER,_COMM,_PID,MESSAGE',
      `--lines=${Math.min(newest ?? mostLines, mostLines)}`,
      ...(since === undefined ? [] : [`--since=${time(since)}`]),
      ...(until === undefined ? [] : [`--until=${time(until)}`]),
      ...(unit === undefined ? [] : [`--unit=${unit}`]),
      ...(afterCursor === undefined ? [] : [`--after-cursor=${afterCursor}`]),
    ],
    // 1 where there is no entry that fits.
    { okCodes: [0, 1], outputBytes: 64 * 1024 * 1024, signal },
  )
  return parseJournal(stdout, beforeCursor)
}

/** Reads `journalctl --output=json`: an object a line. */
export function parseJournal(text: string, lastCursor?: string): JournalPage {
  const all = text
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
  const cursor = (entry: Readonly<Record<string, unknown>> | undefined) =>
    typeof entry?.__CURSOR === 'string' ? entry.__CURSOR : undefined
  const end = lastCursor === undefined ? -1 : all.findIndex((entry) => cursor(entry) === lastCursor)
  const entries = end < 0 ? all : all.slice(0, end + 1)
  const [first, last] = [cursor(entries[0]), cursor(entries.at(-1))]
  return {
    lines: entries.map(lineOf),
    ...(first === undefined ? {} : { firstCursor: first }),
    ...(last === undefined ? {} : { lastCursor: last }),
  }
}

function lineOf(entry: Readonly<Record<string, unknown>>): string {
  const text = (name: string) => textOf(entry[name])
  const time = new Date(Number(text('__REALTIME_TIMESTAMP') ?? 0) / 1000)
  const month = time.toLocaleString('en-US', { month: 'short' })
  const day = String(time.getDate()).padStart(2, '0')
  const clock = time.toLocaleTimeString('en-GB')
  const program = text('SYSLOG_IDENTIFIER') ?? text('_COMM') ?? 'unknown'
  const pid = text('_PID')
  const source = pid === undefined ? program : `${program}[${pid}]`
  return `${month} ${day} ${clock} ${text('_HOSTNAME') ?? 'localhost'} ${source}: ${text('MESSAGE') ?? ''}`
}

/** A message that is no UTF-8 comes as a list of bytes. */
function textOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (!Array.isArray(value)) return undefined
  return Buffer.from(value.filter((byte) => typeof byte === 'number')).toString('utf8')
}
