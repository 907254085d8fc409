/**
 * The log of a task: text for people, one line at a time, readable while it is written.
 *
 * Lines and the whole are bounded, so that a program gone mad fills neither the disk nor a client; the last
 * line is always written, because clients read the outcome from it.
 */
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { limits } from '#base/limits.ts'
import { codeOf } from '#host/files.ts'

export interface LogLine {
  /** Counts from 1. */
  readonly n: number
  readonly t: string
}

export interface LogPage {
  readonly lines: readonly LogLine[]
  /** Lines in the whole log. */
  readonly total: number
}

const warnPrefix = 'WARN: '

export class TaskLog implements Disposable {
  readonly #descriptor: number
  readonly #redact: (text: string) => string
  #sizeBytes: number
  #isFull = false
  #warnings: number
  /** The last write came only half through. */
  #isTorn = false
  /** Lines were left out for want of space. */
  #hasGap = false
  #lastLine: string | undefined

  /** Opens the log to append to it; warnings of a process before this one count. */
  constructor(path: string, redact: (text: string) => string = (text) => text) {
    const before = readIfAny(path)
    this.#descriptor = openSync(path, 'a', 0o600)
    this.#redact = redact
    this.#sizeBytes = Buffer.byteLength(before)
    this.#warnings = warningsIn(before)
    this.#lastLine = before.trimEnd().split('\n').at(-1)
    if (before !== '' && !before.endsWith('\n')) this.#write('')
  }

  get warnings(): number {
    return this.#warnings
  }

  /**
   * Text of several lines becomes several lines. Where the disk has no space for them they are left out: whether
   * a task can go on without space is not for its log to say.
   */
  line(text: string): void {
    for (const part of toLines(this.#redact(text))) {
      if (this.#isFull) return
      if (this.#sizeBytes + Buffer.byteLength(part) > limits.tasks.logBytes) {
        this.#isFull = true
        this.#writeIfSpace(`the log is full (${limits.tasks.logBytes} bytes): what follows is left out`)
        return
      }
      this.#writeIfSpace(part)
    }
  }

  warn(text: string): void {
    this.#warnings += 1
    this.line(warnPrefix + text)
  }

  /** Writes the last line unless a process before this one did, and returns when it is on disk. */
  end(exitstatus: string): void {
    const [line = ''] = toLines(lastLineFor(exitstatus))
    if (this.#lastLine !== line) this.#write(line)
    fsyncSync(this.#descriptor)
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor)
  }

  #writeIfSpace(line: string): void {
    try {
      this.#write(line)
    } catch (error) {
      if (!isNoSpace(error)) throw error
      this.#hasGap = true
    }
  }

  #write(line: string): void {
    const gap = this.#hasGap ? 'here lines are missing: the disk had no space for them\n' : ''
    const bytes = Buffer.from(`${this.#isTorn ? '\n' : ''}${gap}${line}\n`)
    const written = writeSync(this.#descriptor, bytes)
    this.#sizeBytes += written
    this.#isTorn ||= written > 0
    // A file system with space for a part takes that part, and complains only when asked again.
    if (written < bytes.length) writeSync(this.#descriptor, bytes.subarray(written))
    this.#lastLine = line
    this.#isTorn = false
    this.#hasGap = false
  }
}

/** Not of the log alone: the disk, or what its owner may have of it, is full. */
export function isNoSpace(error: unknown): boolean {
  return codeOf(error) === 'ENOSPC' || codeOf(error) === 'EDQUOT'
}

/** `OK` → `TASK OK`, `WARNINGS: 2` → `TASK WARNINGS: 2`, anything else → `TASK ERROR: …`. */
export function lastLineFor(exitstatus: string): string {
  return exitstatus === 'OK' || /^WARNINGS: \d+$/.test(exitstatus) ? `TASK ${exitstatus}` : `TASK ERROR: ${exitstatus}`
}

/** One line of printable text, at most `limits.tasks.logLineBytes` long. */
export function toLines(text: string): string[] {
  return text
    .replace(/(\r?\n|\r)+$/, '')
    .split(/\r?\n|\r/)
    .map((line) => shorten(line.replaceAll('\t', '    ').replaceAll(/\p{Cc}/gu, '')))
}

function shorten(line: string): string {
  const bytes = Buffer.from(line)
  if (bytes.length <= limits.tasks.logLineBytes) return line
  // Cutting inside a character leaves a replacement character at the end.
  return `${bytes
    .subarray(0, limits.tasks.logLineBytes)
    .toString('utf8')
    .replace(/\u{fffd}$/u, '')}…`
}

function readIfAny(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return ''
    throw error
  }
}

function warningsIn(text: string): number {
  return text.split('\n').filter((line) => line.startsWith(warnPrefix)).length
}

/**
 * A page of the log, as clients ask for it: from line `start` (counted from 0) at most `limit` lines, 0 for all.
 * A log without lines, or none yet, answers with the one line `no content`.
 */
export async function readLogPage(path: string, start: number, limit: number): Promise<LogPage> {
  const lines: LogLine[] = []
  let total = 0
  for await (const t of linesOf(path)) {
    total += 1
    if (total > start && (limit === 0 || lines.length < limit)) lines.push({ n: total, t })
  }
  return total === 0 ? { lines: [{ n: 1, t: 'no content' }], total: 1 } : { lines, total }
}

async function* linesOf(path: string): AsyncGenerator<string, void, undefined> {
  try {
    await using file = await open(path, 'r')
    yield* file.readLines()
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
  }
}
