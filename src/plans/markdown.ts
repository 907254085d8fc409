/**
 * Markdown as blocks with positions: headings, items of lists with their boxes, fenced blocks.
 *
 * A plan is edited by position on its own text and never printed from a tree, so what nobody touched stays as it is
 * to the byte. Marks inside of lines (emphasis, links) mean nothing to a plan and are not parsed: finding them takes
 * time that grows with the square of what a hostile document holds. Deep nesting is refused before anything is parsed.
 */
import type { Code, Heading, ListItem, Nodes, Root } from 'mdast'
import { fromMarkdown } from 'mdast-util-from-markdown'
import { gfmTaskListItemFromMarkdown } from 'mdast-util-gfm-task-list-item'
import { gfmTaskListItem } from 'micromark-extension-gfm-task-list-item'
import { Fault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'

export interface Span {
  /** Offsets into the text. */
  readonly start: number
  readonly end: number
  /** Of its first line, from 1. */
  readonly line: number
}

export interface HeadingBlock extends Span {
  readonly depth: number
  readonly title: string
}

export interface FencedBlock extends Span {
  /** First word after the fence. */
  readonly language: string
  /** Without the fences and their indentation. */
  readonly content: string
}

export interface Box {
  readonly isTicked: boolean
  /** Where the letter between the brackets is. */
  readonly at: number
}

export interface Item extends Span {
  /** Of its first paragraph, as written. */
  readonly text: string
  /** Where that paragraph ends. */
  readonly textEnd: number
  /** `-`, `*`, `+`, or empty in a numbered list. */
  readonly bullet: string
  /** Columns before the bullet. */
  readonly indent: number
  readonly box?: Box
  readonly fenced: readonly FencedBlock[]
  readonly items: readonly Item[]
}

/** What stands directly in the document, in order. */
export type Block =
  | ({ readonly kind: 'heading' } & HeadingBlock)
  | ({ readonly kind: 'list'; readonly items: readonly Item[] } & Span)
  | ({ readonly kind: 'fenced' } & FencedBlock)
  | ({ readonly kind: 'other' } & Span)

const inLines = [
  'attention',
  'autolink',
  'characterEscape',
  'characterReference',
  'codeText',
  'htmlText',
  'labelEnd',
  'labelStartImage',
  'labelStartLink',
  'hardBreakEscape',
  'definition',
]
const parsing = {
  extensions: [{ disable: { null: inLines } }, gfmTaskListItem()],
  mdastExtensions: [gfmTaskListItemFromMarkdown()],
}

/** @param text without byte order mark @throws Fault `too-large` */
export function blocksOf(text: string): Block[] {
  refuseExcess(text)
  const tree: Root = fromMarkdown(text, parsing)
  return tree.children.map((node) => blockOf(node, text))
}

const quoteOrItem = /^[ \t]*(?:(?:>|(?:[-*+]|\d{1,9}[.)])(?=[ \t]|$))[ \t]*)+/
const line = /^[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*$/

/** Parsers take their time with thousands of items and with items within items. */
function refuseExcess(text: string): void {
  const rows = text.split(/\r\n|\n|\r/)
  if (rows.length > limits.plans.lines) throw new Fault('too-large', `a plan may have ${limits.plans.lines} lines`)
  let items = 0
  for (const [at, row] of rows.entries()) {
    const opened = quoteOrItem.exec(row)?.[0].match(/>|[-*+]|[.)]/g)?.length ?? 0
    items += opened
    if (items > limits.plans.items)
      throw new Fault('too-large', `a plan may have ${limits.plans.items} items in its lists`)
    const indent = /^[ \t]*/.exec(row)?.[0].length ?? 0
    if ((opened > limits.plans.depth && !line.test(row)) || indent > limits.plans.depth * 8) {
      throw new Fault('too-large', `line ${at + 1} is nested deeper than ${limits.plans.depth} levels`)
    }
  }
}

function blockOf(node: Nodes, text: string): Block {
  switch (node.type) {
    case 'heading':
      return { kind: 'heading', depth: node.depth, title: titleOf(node, text), ...spanOf(node) }
    case 'list':
      return { kind: 'list', items: node.children.map((item) => itemOf(item, text)), ...spanOf(node) }
    case 'code':
      return { kind: 'fenced', ...fencedOf(node) }
    default:
      return { kind: 'other', ...spanOf(node) }
  }
}

function titleOf(node: Heading, text: string): string {
  const [first, last] = [node.children[0], node.children.at(-1)]
  return first && last ? text.slice(spanOf(first).start, spanOf(last).end).trim() : ''
}

function itemOf(node: ListItem, text: string): Item {
  const span = spanOf(node)
  const [first] = node.children
  const paragraph = first?.type === 'paragraph' ? spanOf(first) : { start: span.end, end: span.end }
  const isBox = node.checked === true || node.checked === false
  return {
    ...span,
    text: text.slice(paragraph.start, paragraph.end).trim(),
    textEnd: paragraph.end,
    bullet: /^[-*+]/.exec(text.slice(span.start, span.start + 1))?.[0] ?? '',
    indent: (node.position?.start.column ?? 1) - 1,
    ...(isBox ? { box: { isTicked: node.checked === true, at: boxAt(text, span.start) } } : {}),
    fenced: node.children.flatMap((child) => (child.type === 'code' ? [fencedOf(child)] : [])),
    items: node.children.flatMap((child) =>
      child.type === 'list' ? child.children.map((item) => itemOf(item, text)) : [],
    ),
  }
}

function boxAt(text: string, start: number): number {
  const opened = text.indexOf('[', start)
  return opened + 1
}

function fencedOf(node: Code): FencedBlock {
  return { language: node.lang ?? '', content: node.value, ...spanOf(node) }
}

function spanOf({ position }: Nodes): Span {
  // The parser gives every node its place.
  return { start: position?.start.offset ?? 0, end: position?.end.offset ?? 0, line: position?.start.line ?? 1 }
}
