/**
 * Changes of a plan's text: only insertions and replacements at known places, so that lines of people stay as they are.
 *
 * A change is tried first and looked at: when reading the result does not show what was meant, nothing is written.
 */
import { Fault } from '#base/fault.ts'
import { documentOf, type PlanDocument, type PlanItem } from './document.ts'
import { placeOfMark, printMark, type ProofMark } from './mark.ts'
import { sectionNames, type SectionKey } from './section.ts'

export interface Edit {
  readonly start: number
  readonly end: number
  readonly text: string
}

/** @throws Error when two touch the same place */
export function applyEdits(text: string, edits: readonly Edit[]): string {
  let [result, at] = ['', 0]
  for (const edit of edits.toSorted((a, b) => a.start - b.start || a.end - b.end)) {
    if (edit.start < at) throw new Error('two edits touch the same place')
    result += text.slice(at, edit.start) + edit.text
    at = edit.end
  }
  return result + text.slice(at)
}

/** Ticks a box, or opens it again, and puts the mark behind its words. */
export function markEdits(text: string, item: PlanItem, mark: ProofMark | undefined, isTicked: boolean): Edit[] {
  const start = item.box?.at ?? item.start
  const old = placeOfMark(text.slice(item.start, item.textEnd))
  const edits: Edit[] = []
  if (item.box && item.box.isTicked !== isTicked) edits.push({ start, end: start + 1, text: isTicked ? 'x' : ' ' })
  const printed = mark ? ` ${printMark(mark)}` : ''
  if (old) edits.push({ start: item.start + old.start, end: item.start + old.end, text: printed })
  else if (printed !== '') edits.push({ start: item.textEnd, end: item.textEnd, text: printed })
  return edits
}

/** Adds lines to the end of a section, as items of the list that ends it or as a new one. @throws Fault `conflict` */
export function linesEdit(document: PlanDocument, key: SectionKey, lines: readonly string[]): Edit {
  const section = document.sections.get(key)
  if (!section) {
    throw new Fault('conflict', `the plan has no section '${sectionNames[key][document.language]}' to write into`)
  }
  const newline = newlineOf(document.text)
  const last = section.blocks.at(-1)
  const [bullet = '-', indent = 0] =
    last?.kind === 'list' ? [last.items.at(-1)?.bullet ?? '', last.items.at(-1)?.indent ?? 0] : []
  const goesOn = last?.kind === 'list' && bullet !== ''
  const lead = goesOn ? newline : newline + newline
  const printed = lines.map(
    (line) => `${' '.repeat(goesOn ? indent : 0)}${bullet === '' ? '-' : bullet} ${oneLine(line)}`,
  )
  // A space at the end of a line is part of no block, and stays before what is added.
  const at = section.end + (/^[ \t]*/.exec(document.text.slice(section.end))?.[0].length ?? 0)
  return { start: at, end: at, text: lead + printed.join(newline) }
}

/** Whatever a guest or a node said cannot make a second line, a box or a comment of it. */
function oneLine(line: string): string {
  const plain = line
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/\p{Cc}/gu, '')
    .replaceAll('<!--', '<! --')
    .trim()
  return plain.replace(/^\[([ xX])\]/, '($1)')
}

function newlineOf(text: string): string {
  const windows = text.split('\r\n').length - 1
  return windows * 2 > text.split('\n').length - 1 ? '\r\n' : '\n'
}

/** The text after the edits. @throws Fault `conflict` when it would not read back as the plan it was */
export function edited(document: PlanDocument, edits: readonly Edit[]): string {
  const text = applyEdits(document.text, edits)
  const after = documentOf(text)
  const isSame =
    after.title === document.title &&
    [...document.sections].every(([key, { items }]) => (after.sections.get(key)?.items.length ?? -1) >= items.length)
  if (!isSame) {
    throw new Fault('conflict', 'the plan would not read as the plan it is, with what is to be written into it', {
      remedy: 'See whether a fence or a comment in it is not closed: hako plan lint.',
    })
  }
  return text
}
