/**
 * A ring of measurements in a file whose size never changes: the last hour by the minute, the last decade by the week.
 *
 * Every measurement goes into the slot of its time in each archive at once, as count, mean and maximum. A slot says which
 * time it is of, so an old one is recognised by being read and nothing has to be cleared when a node was off. One
 * process writes; readers may read at any time and see a slot before or after a measurement. A file of other columns is
 * begun anew. Rejected: one row per measurement in the store, which grows, or is pruned all the time.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { codeOf, makeDirectory } from '#host/files.ts'

export const timeframes = ['hour', 'day', 'week', 'month', 'year', 'decade'] as const
export type Timeframe = (typeof timeframes)[number]

interface Archive {
  readonly stepSeconds: number
  readonly rows: number
}

const archives: readonly Archive[] = [
  { stepSeconds: 60, rows: 70 },
  { stepSeconds: 1_800, rows: 70 },
  { stepSeconds: 10_800, rows: 70 },
  { stepSeconds: 43_200, rows: 70 },
  { stepSeconds: 604_800, rows: 570 },
]
/** Which archive answers, and how many of its last slots. */
const views: Readonly<Record<Timeframe, { readonly archive: number; readonly rows: number }>> = {
  hour: { archive: 0, rows: 60 },
  day: { archive: 1, rows: 48 },
  week: { archive: 2, rows: 56 },
  month: { archive: 3, rows: 60 },
  year: { archive: 4, rows: 53 },
  decade: { archive: 4, rows: 522 },
}

export type Consolidation = 'AVERAGE' | 'MAX'
export type Measurement = Readonly<Record<string, number | undefined>>
export type Row = Readonly<Record<string, number>> & { readonly time: number }

const headerBytes = 4096
const numberBytes = 8
/** Of each column: count, mean, maximum. */
const parts = 3

export class RingFile {
  readonly #path: string
  readonly #names: readonly string[]

  /** @param names of the columns, in an order that never changes */
  constructor(path: string, names: readonly string[]) {
    this.#path = path
    this.#names = names
  }

  async record(timeSeconds: number, values: Measurement): Promise<void> {
    await using file = await this.#openToWrite()
    for (const [number, archive] of archives.entries()) {
      const start = Math.floor(timeSeconds / archive.stepSeconds) * archive.stepSeconds
      const at = this.#slotAt(number, start)
      const slot = await this.#read(file, at, 1)
      const merged = mergedInto(slot[0] === start ? slot : emptySlot(start, this.#names.length), this.#names, values)
      await file.write(new Uint8Array(merged.buffer), 0, merged.byteLength, at)
    }
  }

  /** One row for each step, oldest first; what was not measured is missing in its row. */
  async rows(timeframe: Timeframe, how: Consolidation, nowSeconds: number): Promise<Row[]> {
    const { archive: number, rows } = views[timeframe]
    const archive = archives[number] ?? { stepSeconds: 60, rows: 0 }
    const newest = Math.floor(nowSeconds / archive.stepSeconds) * archive.stepSeconds
    const times = Array.from({ length: rows }, (_, index) => newest - (rows - 1 - index) * archive.stepSeconds)
    const file = await this.#openToRead()
    if (!file) return times.map((time) => ({ time }))
    await using _closing = file
    const all = await this.#read(file, this.#archiveAt(number), archive.rows)
    return times.map((time) => this.#row(all, archive, time, how))
  }

  #row(all: Float64Array, archive: Archive, time: number, how: Consolidation): Row {
    const index = (time / archive.stepSeconds) % archive.rows
    const from = index * this.#slotNumbers()
    const row: Record<string, number> & { time: number } = { time }
    if (all[from] !== time) return row
    for (const [column, name] of this.#names.entries()) {
      const at = from + 1 + column * parts
      const value = all[at + (how === 'AVERAGE' ? 1 : 2)]
      if ((all[at] ?? 0) > 0 && value !== undefined) row[name] = value
    }
    return row
  }

  #slotNumbers(): number {
    return 1 + this.#names.length * parts
  }

  #archiveAt(number: number): number {
    const before = archives.slice(0, number).reduce((sum, { rows }) => sum + rows, 0)
    return headerBytes + before * this.#slotNumbers() * numberBytes
  }

  #slotAt(number: number, start: number): number {
    const { stepSeconds, rows } = archives[number] ?? { stepSeconds: 60, rows: 1 }
    return this.#archiveAt(number) + ((start / stepSeconds) % rows) * this.#slotNumbers() * numberBytes
  }

  /** Beyond the end of the file there is nothing yet. */
  async #read(file: FileHandle, at: number, slots: number): Promise<Float64Array> {
    const numbers = new Float64Array(slots * this.#slotNumbers())
    await file.read(new Uint8Array(numbers.buffer), 0, numbers.byteLength, at)
    return numbers
  }

  async #openToRead(): Promise<FileHandle | undefined> {
    try {
      const file = await open(this.#path, 'r')
      if (await this.#isOurs(file)) return file
      await file.close()
      return undefined
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return undefined
      throw cause
    }
  }

  async #openToWrite(): Promise<FileHandle> {
    try {
      const file = await open(this.#path, 'r+')
      if (await this.#isOurs(file)) return file
      await file.close()
    } catch (cause) {
      if (codeOf(cause) !== 'ENOENT') throw cause
    }
    await makeDirectory(dirname(this.#path), 0o700)
    const file = await open(this.#path, 'w+', 0o600)
    await file.write(this.#header(), 0, headerBytes, 0)
    return file
  }

  async #isOurs(file: FileHandle): Promise<boolean> {
    const header = Buffer.alloc(headerBytes)
    await file.read(header, 0, headerBytes, 0)
    return header.equals(this.#header())
  }

  #header(): Buffer {
    const header = Buffer.alloc(headerBytes)
    header.write(`hakobune ring 1\n${JSON.stringify({ archives, columns: this.#names })}\n`)
    return header
  }
}

function emptySlot(start: number, columns: number): Float64Array {
  const slot = new Float64Array(1 + columns * parts)
  slot[0] = start
  return slot
}

function mergedInto(before: Float64Array, names: readonly string[], values: Measurement): Float64Array {
  const slot = new Float64Array(before)
  for (const [column, name] of names.entries()) {
    const value = values[name]
    if (value === undefined || !Number.isFinite(value)) continue
    const at = 1 + column * parts
    const [count = 0, mean = 0, maximum = 0] = slot.subarray(at, at + parts)
    slot.set([count + 1, mean + (value - mean) / (count + 1), count === 0 ? value : Math.max(maximum, value)], at)
  }
  return slot
}
