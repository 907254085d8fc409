/**
 * A plan as a document: its twelve sections, its boxes, and what of it can be run, each with its place in the text.
 *
 * Reading complains about nothing but bounds: what is wrong is `lint.ts`'s to say, because a document somebody is
 * still writing must be readable, too.
 */
import { Fault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { type Block, blocksOf, type FencedBlock, type Item, type Span } from './markdown.ts'
import { type ProofMark, proofMarkIn, withoutMark } from './mark.ts'
import { sectionNames, type SectionKey, sectionOf } from './section.ts'

export interface Section {
  readonly key: SectionKey
  readonly heading: Span & { readonly title: string }
  /** Where its last block ends; the end of the heading in an empty one. */
  readonly end: number
  readonly blocks: readonly Block[]
  /** Items of its lists, those within items too, in order. */
  readonly items: readonly PlanItem[]
}

export interface PlanItem extends Item {
  readonly section: SectionKey
  /** Without box and mark. */
  readonly words: string
  readonly mark?: ProofMark
}

export interface PlanDocument {
  /** Of the whole file, without a byte order mark. */
  readonly text: string
  readonly hasByteOrderMark: boolean
  readonly title: string
  /** What runs write into it is in this language. */
  readonly language: 'en' | 'ja'
  readonly sections: ReadonlyMap<SectionKey, Section>
  /** Headings of sections met a second time. */
  readonly repeated: readonly (Span & { readonly title: string })[]
  /** `Plan ID: plans/x.md` by its key in lower case. */
  readonly metadata: ReadonlyMap<string, MetadataLine>
  /** The block with variables and scope. */
  readonly settings: readonly FencedBlock[]
  /** `step` blocks that belong to no item of a list in a section. */
  readonly stray: readonly FencedBlock[]
}

export interface MetadataLine extends Span {
  readonly key: string
  readonly value: string
}

const byteOrderMark = '\uFEFF'

/** @throws Fault `damaged` when it is no text, `too-large` */
export function readDocument(bytes: Uint8Array): PlanDocument {
  if (bytes.length > limits.plans.documentBytes) {
    throw new Fault('too-large', `a plan may have ${limits.plans.documentBytes} bytes, this has ${bytes.length}`)
  }
  try {
    return documentOf(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes))
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    throw new Fault('damaged', 'this is no text in UTF-8, as a plan is', { cause })
  }
}

export function documentOf(whole: string): PlanDocument {
  const hasByteOrderMark = whole.startsWith(byteOrderMark)
  const text = hasByteOrderMark ? whole.slice(1) : whole
  const blocks = blocksOf(text)
  const { sections, repeated } = sectionsOf(blocks, text)
  const fenced = blocks.flatMap(fencedIn)
  const metadata = metadataOf(sections.get('metadata'), text)
  const steps = new Set([...sections.values()].flatMap(({ items }) => items.flatMap((item) => item.fenced)))
  return {
    text,
    hasByteOrderMark,
    title: titleOf(blocks),
    language: languageOf(sections, metadata),
    sections,
    repeated,
    metadata,
    settings: fenced.filter(({ language }) => language === 'plan'),
    stray: fenced.filter((block) => block.language === 'step' && !steps.has(block)),
  }
}

/** As bytes of a file. */
export function bytesOf({ hasByteOrderMark }: Pick<PlanDocument, 'hasByteOrderMark'>, text: string): Uint8Array {
  return Buffer.from(`${hasByteOrderMark ? byteOrderMark : ''}${text}`)
}

function titleOf(blocks: readonly Block[]): string {
  const first = blocks.find((block) => block.kind === 'heading' && block.depth === 1)
  return first?.kind === 'heading' ? first.title : ''
}

function sectionsOf(blocks: readonly Block[], text: string) {
  const sections = new Map<SectionKey, Section>()
  const repeated: (Span & { title: string })[] = []
  const depth = sectionDepth(blocks)
  let begun: { key: SectionKey; heading: Section['heading']; blocks: Block[] } | undefined
  const close = () => {
    if (begun && !sections.has(begun.key)) sections.set(begun.key, sectionFrom(begun, text))
    else if (begun) repeated.push(begun.heading)
    begun = undefined
  }
  for (const block of blocks) {
    if (block.kind === 'heading' && block.depth <= depth) {
      close()
      const key = block.depth === depth ? sectionOf(block.title) : undefined
      if (key) begun = { key, heading: block, blocks: [] }
    } else begun?.blocks.push(block)
  }
  close()
  return { sections, repeated }
}

/** Plans have their sections as `##`; one that is part of a larger document may have them deeper. */
function sectionDepth(blocks: readonly Block[]): number {
  const counts = new Map<number, number>()
  for (const block of blocks) {
    if (block.kind === 'heading' && sectionOf(block.title)) counts.set(block.depth, (counts.get(block.depth) ?? 0) + 1)
  }
  return [...counts].toSorted(([a, m], [b, n]) => n - m || a - b)[0]?.[0] ?? 2
}

function sectionFrom(
  { key, heading, blocks }: { key: SectionKey; heading: Section['heading']; blocks: readonly Block[] },
  text: string,
): Section {
  const items = blocks.flatMap((block) => (block.kind === 'list' ? block.items.flatMap(withInner) : []))
  return {
    key,
    heading,
    end: blocks.at(-1)?.end ?? endOfLine(text, heading.end),
    blocks,
    items: items.map((item) => ({ ...item, section: key, ...wordsOf(item) })),
  }
}

function wordsOf(item: Item): Pick<PlanItem, 'words' | 'mark'> {
  const mark = proofMarkIn(item.text)
  return { words: withoutMark(item.text), ...(mark ? { mark } : {}) }
}

function endOfLine(text: string, from: number): number {
  const end = text.slice(from).search(/\r|\n/)
  return end < 0 ? text.length : from + end
}

function withInner(item: Item): Item[] {
  return [item, ...item.items.flatMap(withInner)]
}

function fencedIn(block: Block): FencedBlock[] {
  if (block.kind === 'fenced') return [block]
  return block.kind === 'list' ? block.items.flatMap(withInner).flatMap(({ fenced }) => fenced) : []
}

/** As the metadata name it, else that of most headings. */
function languageOf(
  sections: ReadonlyMap<SectionKey, Section>,
  metadata: ReadonlyMap<string, MetadataLine>,
): 'en' | 'ja' {
  const named = metadata.get('language')?.value ?? ''
  if (/^(?:ja\b|japanese|日本語)/i.test(named)) return 'ja'
  if (/^(?:en\b|english|英語)/i.test(named)) return 'en'
  const isJapanese = ({ heading }: Section) =>
    /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u.test(heading.title)
  return [...sections.values()].filter(isJapanese).length * 2 > sections.size ? 'ja' : 'en'
}

/** What the keys are called, in either language. */
const metadataKeys: Readonly<Record<string, string>> = {
  計画id: 'plan id',
  プランid: 'plan id',
  表題: 'title',
  題名: 'title',
  タイトル: 'title',
  状態: 'status',
  ステータス: 'status',
  言語: 'language',
}

function metadataOf(section: Section | undefined, text: string): Map<string, MetadataLine> {
  const lines = (section?.items ?? []).flatMap((item): [string, MetadataLine][] => {
    const [, name = '', value = ''] = /^([^:：\n]{1,60})[:：][ \t　]*(.*)/.exec(item.text) ?? []
    const plain = name.trim().toLowerCase()
    const key = metadataKeys[plain.replaceAll(/\s/g, '')] ?? plain
    const at = text.indexOf(value, item.start)
    return key === '' ? [] : [[key, { key, value: value.trim(), start: at, end: at + value.length, line: item.line }]]
  })
  return new Map(lines.toReversed())
}

/** What the document calls the section, for messages. */
export function nameOfSection(key: SectionKey, language: 'en' | 'ja'): string {
  return sectionNames[key][language]
}
