/** The checks as a table that fits the terminal; the last column wraps, in any script. */
import stringWidth from 'string-width'
import type { Check } from './preflight.ts'
import type { Language } from './terminal.ts'

const marks = {
  ok: { en: 'ok', ja: '可' },
  fallback: { en: 'fallback', ja: '代替' },
  missing: { en: 'MISSING', ja: '不足' },
} as const

const narrowest = 40
const graphemes = new Intl.Segmenter()

/** @param width columns to fill; without one (a pipe) nothing is wrapped */
export function preflightTable(checks: readonly Check[], language: Language, width: number | undefined): string {
  const rows = checks.map(({ state, name, found, means, fallback }) => {
    const instead = fallback ? ` → ${fallback[language]}` : ''
    return [marks[state][language], name[language], `${found[language]}: ${means[language]}${instead}`] as const
  })
  const columns = [0, 1].map((at) => Math.max(...rows.map((row) => stringWidth(row[at] ?? ''))))
  const indent = 2 + columns.reduce((sum, column) => sum + column + 2, 0)
  const room = width === undefined ? Infinity : Math.max(narrowest, width - indent)
  return rows
    .map(([mark, name, text]) => {
      const [first = '', ...rest] = wrap(text, room)
      const head = `  ${pad(mark, columns[0] ?? 0)}  ${pad(name, columns[1] ?? 0)}  ${first}`
      return [head, ...rest.map((line) => ' '.repeat(indent) + line)].join('\n')
    })
    .join('\n')
}

function pad(text: string, width: number): string {
  return text + ' '.repeat(width - stringWidth(text))
}

/** Breaks at spaces, and anywhere between wide letters, which have none. */
export function wrap(text: string, room: number): string[] {
  const pieces = [...graphemes.segment(text)].map(({ segment }) => segment)
  const lines: string[] = []
  let [line, lastSpace] = ['', -1]
  for (const piece of pieces) {
    if (stringWidth(line + piece) > room) {
      const isWord = stringWidth(piece) === 1 && piece !== ' '
      const cut = isWord && lastSpace > 0 ? lastSpace : line.length
      lines.push(line.slice(0, cut).trimEnd())
      line = line.slice(cut).trimStart()
      lastSpace = -1
    }
    if (piece === ' ' && line === '') continue
    line += piece
    if (piece === ' ') lastSpace = line.length
  }
  return line === '' ? lines : [...lines, line]
}
