/**
 * Rows as a table that fits the terminal: the widest columns give way first, nothing is coloured when piped.
 *
 * Width is counted as terminals draw it (wide Japanese letters, combining marks) by `string-width`. Table
 * libraries were tried: they draw borders well and do not fit columns to a terminal.
 */
import stringWidth from 'string-width'
import { humanValue } from './units.ts'

export type Row = Readonly<Record<string, unknown>>

/** @param width columns of the terminal; without one (a pipe) nothing is cut */
export function tableText(rows: readonly Row[], columns: readonly string[], width: number | undefined): string {
  const head = columns.map((column) => column.toUpperCase())
  const lines = [head, ...rows.map((row) => columns.map((column) => cellText(humanValue(column, row[column]))))]
  const natural = columns.map((_, at) => Math.max(...lines.map((line) => stringWidth(line[at] ?? ''))))
  const widths = width === undefined ? natural : fit(natural, width - 2 * (columns.length - 1))
  return lines
    .map((line) =>
      line
        .map((cell, at) => padded(cell, widths[at] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

const graphemes = new Intl.Segmenter()

/** Exactly `width` columns wide: filled with spaces, or cut with an ellipsis. */
function padded(text: string, width: number): string {
  const own = stringWidth(text)
  if (own <= width) return text + ' '.repeat(width - own)
  let cut = ''
  for (const { segment } of graphemes.segment(text)) {
    if (stringWidth(cut + segment) > width - 1) break
    cut += segment
  }
  return `${cut}…${' '.repeat(Math.max(0, width - 1 - stringWidth(cut)))}`
}

/** Key and value, one per line. */
export function factsText(facts: Row): string {
  const names = Object.keys(facts)
  const width = Math.max(0, ...names.map((name) => stringWidth(name)))
  return names
    .map((name) => `${name}${' '.repeat(width - stringWidth(name))}  ${cellText(humanValue(name, facts[name]))}`)
    .join('\n')
}

export function cellText(value: unknown): string {
  if (value === undefined || value === null) return '-'
  if (typeof value === 'object') return JSON.stringify(value)
  // Control characters would move the cursor out of the cell.
  // oxlint-disable-next-line no-control-regex
  return String(value as string | number | boolean).replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ')
}

/** Takes from the widest until all fit; no column gets narrower than 6. */
export function fit(natural: readonly number[], available: number): number[] {
  const widths = [...natural]
  let over = widths.reduce((sum, width) => sum + width, 0) - available
  while (over > 0) {
    const widest = widths.indexOf(Math.max(...widths))
    const width = widths[widest] ?? 0
    if (width <= 6) break
    widths[widest] = width - 1
    over -= 1
  }
  return widths
}
