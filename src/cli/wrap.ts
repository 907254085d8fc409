/** Words broken into lines that fit a terminal; for help, which people read at 80 columns. */
import { type Measure, measureFor } from './text-width.ts'

/** What a pipe gets: `--help | less` is read on a terminal too. */
export const usualWidth = 80

/** Names to the left, sentences to the right; a name that is too long has a line of its own. */
export async function columns(rows: readonly (readonly [string, string])[], width: number): Promise<string> {
  const measure = await measureFor(rows.flat())
  const widths = rows.map(([left]) => measure(left))
  const left = Math.max(0, ...widths.filter((own) => own <= Math.min(44, (width * 2) / 5)))
  const indent = ' '.repeat(left + 4)
  return rows
    .map(([name, sentence], at) => {
      const own = widths[at] ?? 0
      const lines = wrapped(sentence, Math.max(20, width - left - 4), measure)
      const text = lines.join(`\n${indent}`)
      if (text === '') return `  ${name}`
      return own > left ? `  ${name}\n${indent}${text}` : `  ${name}${' '.repeat(left - own)}  ${text}`
    })
    .join('\n')
}

/** Lines at most `width` wide, where words allow it. Japanese breaks between any two letters. */
export function wrapped(text: string, width: number, measure: Measure): string[] {
  const lines: string[] = []
  let line = ''
  for (const piece of piecesOf(text)) {
    if (line !== '' && measure((line + piece).trimEnd()) > width) {
      lines.push(line.trimEnd())
      line = ''
    }
    line += line === '' ? piece.trimStart() : piece
  }
  return line.trim() === '' ? lines : [...lines, line.trimEnd()]
}

/** Words with the spaces behind them; a wide letter is a word, closing marks stay with what they close. */
function piecesOf(text: string): string[] {
  return (
    text.match(
      /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}ー][、。）」]*\s*|[^\s\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}、。]+[、。）」]*\s*|\s+|[、。]/gu,
    ) ?? []
  )
}
