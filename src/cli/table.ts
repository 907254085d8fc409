/**
 * Rows as a table that fits the terminal: the widest columns give way first, nothing is coloured when piped.
 *
 * Width is counted as terminals draw it (`text-width.ts`). Table libraries were tried: they draw borders well
 * and do not fit columns to a terminal.
 */
import { type Measure, measureFor } from './text-width.ts'
import { humanValue, unitOf } from './units.ts'

export type Row = Readonly<Record<string, unknown>>

/** @param width columns of the terminal; without one (a pipe) nothing is cut */
export async function tableText(
  rows: readonly Row[],
  columns: readonly string[],
  width: number | undefined,
): Promise<string> {
  const all = await laidOut(rows, columns, width)
  // Where there is too little room, what says nothing in any row gives way first.
  const { lines, widths, measure } = all.isWhole ? all : await laidOut(rows, telling(rows, columns), width)
  if (!widths) return (await Promise.all(rows.map((row) => factsText(only(row, columns))))).join('\n\n')
  return lines
    .map((line) =>
      line
        .map((cell, at) => padded(cell, widths[at] ?? 0, measure))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

async function laidOut(rows: readonly Row[], columns: readonly string[], width: number | undefined) {
  const head = columns.map((column) => column.toUpperCase())
  const lines = [head, ...rows.map((row) => columns.map((column) => cellText(humanValue(column, row[column]))))]
  const measure = await measureFor(lines.flat())
  const natural = columns.map((_, at) => Math.max(...lines.map((line) => measure(line[at] ?? ''))))
  const gaps = 2 * (columns.length - 1)
  const isWhole = width === undefined || natural.reduce((sum, own) => sum + own, gaps) <= width
  const widths = width === undefined ? natural : fit(natural, width - gaps, columns.map(isKept))
  return { lines, measure, widths, isWhole }
}

function telling(rows: readonly Row[], columns: readonly string[]): string[] {
  return columns.filter((column) => rows.some((row) => cellText(row[column]) !== '-'))
}

/** Exactly `width` columns wide: filled with spaces, or cut with an ellipsis. */
function padded(text: string, width: number, measure: Measure): string {
  const own = measure(text)
  if (own <= width) return text + ' '.repeat(width - own)
  let cut = ''
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (measure(cut + segment) > width - 1) break
    cut += segment
  }
  return `${cut}…${' '.repeat(Math.max(0, width - 1 - measure(cut)))}`
}

/** Key and value, one per line. */
export async function factsText(facts: Row): Promise<string> {
  const names = Object.keys(facts)
  const measure = await measureFor(names)
  const width = Math.max(0, ...names.map(measure))
  return names
    .map((name) => `${name}${' '.repeat(width - measure(name))}  ${cellText(humanValue(name, facts[name]))}`)
    .join('\n')
}

export function cellText(value: unknown): string {
  if (value === undefined || value === null || value === '') return '-'
  if (typeof value === 'object') return JSON.stringify(value)
  // Control characters would move the cursor out of the cell.
  // oxlint-disable-next-line no-control-regex
  return String(value as string | number | boolean).replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ')
}

/** What a person copies or compares: cut, it is worth nothing. */
function isKept(column: string): boolean {
  return (
    /^(vmid|id|upid|volid|drill|userid|storage|tokenid|full-tokenid|node|iface|cidr|backup)$/.test(column) ||
    unitOf(column) === 'time' ||
    unitOf(column) === 'expiry'
  )
}

function only(row: Row, columns: readonly string[]): Row {
  return Object.fromEntries(columns.map((column) => [column, row[column]]))
}

/**
 * Takes from the widest until all fit; kept columns stay whole, no other gets narrower than 6.
 * @returns nothing when that is not enough: then the rows are better shown one below the other
 */
export function fit(
  natural: readonly number[],
  available: number,
  kept: readonly boolean[] = [],
): number[] | undefined {
  const widths = [...natural]
  let over = widths.reduce((sum, width) => sum + width, 0) - available
  while (over > 0) {
    const free = widths.map((width, at) => (kept[at] ? 0 : width))
    const widest = free.indexOf(Math.max(...free))
    const width = free[widest] ?? 0
    if (width <= 6) return undefined
    widths[widest] = width - 1
    over -= 1
  }
  return widths
}
