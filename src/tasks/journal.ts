/**
 * The journal of a task: one JSON line per event, each on disk before the next thing happens; but for those that can
 * wait, which are there with the next line that cannot. A line can wait when a recovery does right without it: of a
 * step that ended (it would be undone), of one that has no undo, and of an undo that begins.
 *
 * It alone decides what a recovery does, so its order is the truth: a step that began may have happened, a
 * step without `begin` did not. A last line without its end was being written when power was lost: the event
 * it told of had not been acknowledged, and it is cut off. Any other broken line is damage, which nobody
 * guesses about. One process writes at a time: the daemon before it says go, then the worker, then the
 * process that recovers it.
 */
import { open, type FileHandle } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import type { Json } from '#store/store.ts'

export type JournalRecord =
  | { readonly event: 'accepted'; readonly upid: string }
  | { readonly event: 'begin' | 'undo' | 'undone'; readonly step: string }
  | { readonly event: 'done'; readonly step: string; readonly result?: Json | undefined }
  /** Every step is done; only undos marked `always` follow. */
  | { readonly event: 'succeeded' }
  /** Decided: what began is undone. */
  | { readonly event: 'unwinding'; readonly reason: string }
  /** Nothing follows but the release of locks. Milliseconds since 1970. */
  | { readonly event: 'settled'; readonly exitstatus: string; readonly endedAtMs?: number }

export interface Journal {
  readonly records: readonly JournalRecord[]
  /** Resolves when the record is on disk; with `canWait`, when it is in the kernel's hands. */
  readonly add: (record: JournalRecord, canWait?: boolean) => Promise<void>
}

/** For tests of operations, and for running one without a task. */
export function memoryJournal(records: readonly JournalRecord[] = []): Journal {
  const kept = [...records]
  return { records: kept, add: async (record) => void kept.push(record) }
}

export interface FileJournal extends Journal, AsyncDisposable {}

/**
 * Opens a journal to go on writing it, creating it where there is none.
 * @throws Fault `damaged` when a line other than a torn last one cannot be read
 */
export async function openJournal(path: string): Promise<FileJournal> {
  const file = await open(path, 'a+', 0o600)
  try {
    const text = await file.readFile('utf8')
    const { records, wholeBytes } = parseJournal(text, path)
    if (wholeBytes < Buffer.byteLength(text)) await file.truncate(wholeBytes)
    return journalOn(file, path, records, wholeBytes)
  } catch (error) {
    await file.close()
    throw asFileFault(error, path)
  }
}

function journalOn(file: FileHandle, path: string, records: JournalRecord[], wholeBytes: number): FileJournal {
  let sizeBytes = wholeBytes
  return {
    records,
    async add(record, canWait = false) {
      const line = Buffer.from(`${JSON.stringify(record)}\n`)
      try {
        await file.appendFile(line)
        if (!canWait) await file.datasync()
      } catch (error) {
        // What a full disk took of the line must not become the beginning of the next one.
        await file.truncate(sizeBytes)
        throw asFileFault(error, path)
      }
      sizeBytes += line.length
      records.push(record)
    },
    [Symbol.asyncDispose]: () => file.close(),
  }
}

/** Reads lines; `wholeBytes` is where the last whole one ends. */
export function parseJournal(text: string, path: string): { records: JournalRecord[]; wholeBytes: number } {
  const end = text.lastIndexOf('\n') + 1
  const lines = text.slice(0, end).split('\n').slice(0, -1)
  const records = lines.map((line, index) => {
    const record = parseRecord(line)
    if (!record) throw new Fault('damaged', `line ${index + 1} of the journal '${path}' is damaged`)
    return record
  })
  return { records, wholeBytes: Buffer.byteLength(text.slice(0, end)) }
}

function parseRecord(line: string): JournalRecord | undefined {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return undefined // The caller names the line.
  }
  return isRecord(value) ? value : undefined
}

const needs: Readonly<Record<JournalRecord['event'], string | undefined>> = {
  accepted: 'upid',
  begin: 'step',
  undo: 'step',
  undone: 'step',
  done: 'step',
  succeeded: undefined,
  unwinding: 'reason',
  settled: 'exitstatus',
}

function isRecord(value: unknown): value is JournalRecord {
  if (typeof value !== 'object' || value === null || !('event' in value) || typeof value.event !== 'string')
    return false
  if (!Object.hasOwn(needs, value.event)) return false
  const field = needs[value.event as JournalRecord['event']]
  return field === undefined || typeof Object.entries(value).find(([key]) => key === field)?.[1] === 'string'
}

/** How far a task came, as its journal tells it. */
export interface JournalState {
  readonly stage:
    | { readonly is: 'performing' | 'succeeded' }
    | { readonly is: 'unwinding'; readonly reason: string }
    | { readonly is: 'settled'; readonly exitstatus: string; readonly endedAtMs?: number }
  /** Steps that began and are not undone, in the order they began. */
  readonly toUndo: readonly string[]
  readonly done: Readonly<Record<string, Json | undefined>>
}

export function stateOf(records: readonly JournalRecord[]): JournalState {
  const toUndo = new Set<string>()
  const done: Record<string, Json | undefined> = {}
  let stage: JournalState['stage'] = { is: 'performing' }
  for (const record of records) {
    switch (record.event) {
      case 'accepted':
      case 'undo':
        break
      case 'begin':
        toUndo.add(record.step)
        break
      case 'done':
        done[record.step] = record.result
        break
      case 'undone':
        toUndo.delete(record.step)
        break
      case 'succeeded':
        stage = { is: 'succeeded' }
        break
      case 'unwinding':
        stage = { is: 'unwinding', reason: record.reason }
        break
      case 'settled':
        stage = { ...record, is: 'settled' }
        break
      default:
        record satisfies never
    }
  }
  return { stage, toUndo: [...toUndo], done }
}
