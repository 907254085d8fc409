/** An architecture as SVG: one file that stands by itself, in light or dark, with an anchor on every part. */
import stringWidth from 'string-width'
import type { Architecture, Edge, EdgeType, Part, PartState } from '#views/architecture/graph.ts'
import { edgeTypes, partStates } from '#views/architecture/graph.ts'
import type { Language } from '../text.ts'
import { type Box, type Layout, layOut, type PlacedEdge, type Size } from './layout.ts'
import { countsIn, edgeWords, kindWord, laneWords, restWord, stateWords } from './words.ts'

export const themes = ['auto', 'light', 'dark'] as const
export type Theme = (typeof themes)[number]

/** A way through the parts, with what was measured on it. */
export interface Way {
  readonly title: string
  readonly stops: readonly WayStop[]
}

export interface WayStop {
  readonly part: string
  readonly says?: string | undefined
  /** Where it came from; the stop before it when absent. */
  readonly from?: string
}

export interface Drawing {
  readonly language: Language
  readonly theme: Theme
  readonly way?: Way | undefined
  /** For what the node says of its parts. */
  readonly translate: (text: string) => string
}

/** Sizes of text, and the width of a column as a part of them: bold text is wider. */
const [titleSize, textSize, narrow, bold] = [13, 11, 0.56, 0.64]
const widest = 44
const legendHeight = 64

/** The same text for the same architecture, to the byte. */
export async function drawArchitecture(architecture: Architecture, drawing: Drawing): Promise<string> {
  const { language, theme, way } = drawing
  const lines = new Map(
    architecture.parts.map((part) => [part.id, linesOf(translated(part, drawing.translate), language)]),
  )
  const said = new Map(way?.stops.map(({ part, says }) => [part, says]))
  const layout = await layOut(architecture, ({ id }) => roomFor(sizeOf(lines.get(id) ?? []), said.get(id)))
  const width = Math.max(layout.width, 760)
  const top = way ? 76 : 44
  const height = layout.height + top + legendHeight
  const title = language === 'ja' ? `ノード ${architecture.node} の構成` : `Architecture of node ${architecture.node}`
  const onWay = new Set(way?.stops.map(({ part }) => part))
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title" lang="${language}" class="${theme}">`,
    `<title id="title">${escape(title)}</title>`,
    `<style>${style(theme)}</style>`,
    markers(),
    `<rect class="page" width="${width}" height="${height}"/>`,
    `<text class="heading" x="20" y="29">${escape(title)}</text>`,
    ...(way ? [`<text class="way-title" x="20" y="54">${escape(way.title)}</text>`] : []),
    `<g transform="translate(${(width - layout.width) / 2} ${top})">`,
    ...[...layout.lanes].map(([lane, box]) => drawLane(laneWords[lane][language], box, lane)),
    ...layout.edges.map((edge) => drawEdge(edge, way !== undefined)),
    ...(way ? [drawWay(stopsOn(way, layout))] : []),
    ...architecture.parts.map((part) =>
      drawPart(part, layout.boxes.get(part.id), lines.get(part.id) ?? [], {
        language,
        isFaded: way !== undefined && !onWay.has(part.id),
      }),
    ),
    ...(way ? stopsOn(way, layout).map(drawStop) : []),
    '</g>',
    legend(architecture.edges, { language, y: height - legendHeight + 14 }),
    '</svg>',
    '',
  ].join('\n')
}

function translated(part: Part, translate: Drawing['translate']): Part {
  return part.detail === undefined ? part : { ...part, detail: translate(part.detail) }
}

interface Line {
  readonly text: string
  readonly role: 'kind' | 'name' | 'detail'
}

function linesOf({ kind, name, detail, version, count, isRest }: Part, language: Language): Line[] {
  const isMany = count !== undefined
  const heading = kindWord(kind, isMany, language)
  const lines: Line[] = [{ text: isRest ? `${heading}: ${restWord(count ?? 0, language)}` : heading, role: 'kind' }]
  if (name !== undefined) lines.push({ text: name, role: 'name' })
  if (detail !== undefined) lines.push({ text: isMany ? countsIn(detail, language) : detail, role: 'detail' })
  if (version !== undefined) lines.push({ text: version, role: 'detail' })
  return lines.map((line) => ({ ...line, text: cut(line.text) }))
}

/** At most `widest` columns; the rest is for whoever asks the node. */
function cut(text: string): string {
  if (stringWidth(text) <= widest) return text
  let kept = ''
  for (const sign of text) {
    if (stringWidth(kept + sign) > widest - 1) break
    kept += sign
  }
  return `${kept.trimEnd()}…`
}

function sizeOf(lines: readonly Line[]): Size {
  const columns = lines.map(({ text, role }) => {
    if (role === 'detail') return stringWidth(text) * textSize * narrow
    return stringWidth(text) * titleSize * (role === 'kind' ? bold : narrow) + (role === 'kind' ? 12 : 0)
  })
  return { width: Math.max(112, Math.ceil(Math.max(...columns) + 44)), height: 20 + lines.length * 17 }
}

/** Name of the part in the document: a link may point at it. */
export function anchorOf(id: string): string {
  return id.replaceAll('/', '--').replaceAll(/[^A-Za-z0-9._-]/g, '_')
}

function drawPart(
  part: Part,
  box: Box | undefined,
  lines: readonly Line[],
  { language, isFaded }: { readonly language: Language; readonly isFaded: boolean },
): string {
  if (!box) return ''
  const { x, y, width, height } = box
  const { sign } = stateWords[part.state]
  const said = [...lines.map(({ text }) => text), stateWords[part.state][language]].join(', ')
  return [
    `<g id="${anchorOf(part.id)}" class="part ${part.state}${isFaded ? ' faded' : ''}" data-kind="${part.kind}" data-state="${part.state}">`,
    `<title>${escape(part.detail === undefined ? said : `${said}: ${part.detail}`)}</title>`,
    `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="8"/>`,
    `<path class="bar" d="M${x + 8} ${y}h-1a7 7 0 0 0-7 7v${height - 14}a7 7 0 0 0 7 7h1z"/>`,
    `<text class="sign" x="${x + width - 16}" y="${y + 20}">${sign}</text>`,
    ...lines.map(
      ({ text, role }, at) => `<text class="${role}" x="${x + 18}" y="${y + 21 + at * 17}">${escape(text)}</text>`,
    ),
    '</g>',
  ].join('')
}

function drawLane(title: string, { x, y, width, height }: Box, lane: string): string {
  return `<g class="lane" id="lane-${lane}"><rect x="${x}" y="${y}" width="${width}" height="${height}" rx="10"/><text x="${x + 14}" y="${y + 19}">${escape(title)}</text></g>`
}

const classOf = (type: EdgeType) => type.replaceAll(' ', '-')

function drawEdge({ from, to, type, points }: PlacedEdge, isFaded: boolean): string {
  const path = points.map(({ x, y }, at) => `${at === 0 ? 'M' : 'L'}${round(x)} ${round(y)}`).join('')
  const name = classOf(type)
  return `<path class="edge ${name}${isFaded ? ' faded' : ''}" d="${path}" marker-end="url(#end-${name})" data-from="${escape(from)}" data-to="${escape(to)}"/>`
}

interface Stop {
  readonly box: Box
  readonly says: string | undefined
  readonly from: Box | undefined
}

function stopsOn({ stops }: Way, { boxes }: Layout): Stop[] {
  const drawn = stops.filter(({ part }) => boxes.has(part))
  return drawn.flatMap(({ part, says, from = '' }, at) => {
    const box = boxes.get(part)
    return box ? [{ box, says, from: boxes.get(from) ?? boxes.get(drawn[at - 1]?.part ?? '') }] : []
  })
}

/** A thick line to each stop from where it was come from, below the parts. */
function drawWay(stops: readonly Stop[]): string {
  const centreOf = ({ x, y, width, height }: Box) => ({ x: x + width / 2, y: y + height / 2 })
  const line = stops.flatMap(({ box, from }) => {
    if (!from) return []
    const [begin, end] = [centreOf(from), centreOf(box)]
    // Between two of the same height a straight line would run through what stands between them.
    const isBeside = Math.abs(begin.y - end.y) < 30 && Math.abs(begin.x - end.x) > from.width
    const bow = isBeside ? from.height / 2 + 26 : 0
    // A long one goes round what stands on its way.
    const isLong =
      !isBeside && Math.abs(begin.y - end.y) > 260 && Math.abs(begin.x - end.x) < Math.abs(begin.y - end.y) / 2
    const aside = isLong ? Math.min(220, Math.abs(begin.y - end.y) * 0.4) * (end.x < begin.x ? -1 : 1) : 0
    const [near, far] = isBeside ? [begin.y - bow, end.y - bow] : [(begin.y + end.y) / 2, (begin.y + end.y) / 2]
    return [
      `M${round(begin.x)} ${round(begin.y)}C${round(begin.x + aside)} ${round(near)} ${round(end.x + aside)} ${round(far)} ${round(end.x)} ${round(end.y)}`,
    ]
  })
  return `<path class="way" d="${line.join('')}"/>`
}

/** Its number, and what was measured there. */
function drawStop({ box, says }: Stop, at: number): string {
  const [x, y] = [round(box.x + box.width - 4), round(box.y + 2)]
  const mark = `<circle class="way-mark" cx="${x}" cy="${y}" r="11"/><text class="way-number" x="${x}" y="${y + 4}">${at + 1}</text>`
  return says === undefined ? mark : `${mark}${wayLabel(says, box)}`
}

const labelWidth = (says: string) => Math.ceil(stringWidth(says) * textSize * narrow) + 16

/** What was measured at a part stands below it, and must not run into what stands beside it. */
function roomFor({ width, height }: Size, says: string | undefined): Size {
  return says === undefined ? { width, height } : { width: Math.max(width, labelWidth(says)), height: height + 4 }
}

function wayLabel(says: string, { x, y, width, height }: Box): string {
  const room = labelWidth(says)
  const left = round(x + width / 2 - room / 2)
  const below = round(y + height - 6)
  return `<g class="way-label"><rect x="${left}" y="${below}" width="${room}" height="20" rx="6"/><text x="${left + 8}" y="${below + 14}">${escape(says)}</text></g>`
}

function legend(edges: readonly Edge[], { language, y }: { readonly language: Language; readonly y: number }): string {
  let x = 20
  const parts: string[] = []
  for (const state of partStates.toReversed()) {
    const { sign } = stateWords[state]
    const text = stateWords[state][language]
    parts.push(`<g class="part ${state}"><text class="sign" x="${x}" y="${y + 14}">${sign}</text></g>`)
    parts.push(`<text class="detail" x="${x + 16}" y="${y + 13}">${escape(text)}</text>`)
    x += 16 + Math.ceil(stringWidth(text) * textSize * narrow) + 24
  }
  x = 20
  for (const type of edgeTypes.filter((one) => edges.some((edge) => edge.type === one))) {
    const [text, name] = [edgeWords[type][language], classOf(type)]
    parts.push(`<path class="edge ${name}" d="M${x} ${y + 34}h34" marker-end="url(#end-${name})"/>`)
    parts.push(`<text class="detail" x="${x + 42}" y="${y + 38}">${escape(text)}</text>`)
    x += 42 + Math.ceil(stringWidth(text) * textSize * narrow) + 24
  }
  return `<g class="legend">${parts.join('')}</g>`
}

function markers(): string {
  const all = edgeTypes.map((type) => {
    const name = classOf(type)
    return `<marker id="end-${name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="10" markerHeight="10" markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path class="end ${name}" d="M0 0L8 4L0 8z"/></marker>`
  })
  return `<defs>${all.join('')}</defs>`
}

const round = (value: number) => Math.round(value * 10) / 10

function escape(text: string): string {
  const named: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
  // Control characters cannot stand in XML, not even escaped.
  return text
    .replaceAll(/[^\P{Cc}\t\n\r]|[\uFFFE\uFFFF]/gu, '\uFFFD')
    .replaceAll(/[&<>"]/g, (sign) => named[sign] ?? sign)
}

type Colours = Readonly<Record<string, string>>

const light: Colours = {
  page: '#ffffff',
  lane: '#f4f6f8',
  'lane-line': '#dfe4ea',
  box: '#ffffff',
  line: '#b8c2cc',
  text: '#1c2733',
  soft: '#52606d',
  ok: '#1a7f4b',
  off: '#7b8794',
  warning: '#b45d00',
  failed: '#c62828',
  unknown: '#6d5bd0',
  'runs-on': '#52606d',
  'stores-on': '#1d6fb8',
  'connects-to': '#0f8a8a',
  'backs-up-to': '#1a7f4b',
  'depends-on': '#9aa5b1',
  way: '#d6336c',
}
const dark: Colours = {
  page: '#12181f',
  lane: '#1a222b',
  'lane-line': '#2b3642',
  box: '#222c37',
  line: '#465564',
  text: '#e6ebf0',
  soft: '#a7b3bf',
  ok: '#4cc38a',
  off: '#8a97a5',
  warning: '#f0a13a',
  failed: '#ff6b6b',
  unknown: '#a99bff',
  'runs-on': '#a7b3bf',
  'stores-on': '#6cb2f0',
  'connects-to': '#4fd1d1',
  'backs-up-to': '#4cc38a',
  'depends-on': '#66727f',
  way: '#ff7aa8',
}

function style(theme: Theme): string {
  const variables = (colours: Colours) =>
    Object.entries(colours)
      .map(([name, value]) => `--${name}:${value}`)
      .join(';')
  const states = partStates.map((state: PartState) => `.${state} .bar,.${state} .sign{fill:var(--${state})}`).join('')
  const edges = edgeTypes
    .map(classOf)
    .map((name) => `.edge.${name}{stroke:var(--${name})}.end.${name}{fill:var(--${name})}`)
    .join('')
  const isDark = theme === 'dark'
  return [
    `svg{${variables(isDark ? dark : light)}}`,
    ...(theme === 'auto' ? [`@media (prefers-color-scheme:dark){svg{${variables(dark)}}}`] : []),
    'text{font-family:"Noto Sans","Noto Sans CJK JP","Hiragino Sans","Yu Gothic UI",system-ui,sans-serif;fill:var(--text);font-size:11px}',
    '.page{fill:var(--page)}.heading{font-size:17px;font-weight:600}',
    '.lane rect{fill:var(--lane);stroke:var(--lane-line)}.lane text{font-size:12px;font-weight:600;fill:var(--soft)}',
    '.part>rect{fill:var(--box);stroke:var(--line)}.part.unknown>rect{stroke:var(--unknown);stroke-dasharray:5 4}.part.failed>rect{stroke:var(--failed);stroke-width:2}',
    '.kind{font-size:13px;font-weight:600}.name{font-size:13px}.detail{fill:var(--soft)}.sign{font-size:12px;text-anchor:middle}',
    '.legend .sign{text-anchor:start}',
    states,
    '.edge{fill:none;stroke-width:1.4}.stores-on{stroke-width:2}.connects-to{stroke-dasharray:7 4}.backs-up-to{stroke-width:2;stroke-dasharray:2 4;stroke-linecap:round}.depends-on{stroke-dasharray:4 4}',
    edges,
    'g.faded>*{opacity:.45}g.faded>rect{opacity:1}path.faded{opacity:.35}',
    '.way{fill:none;stroke:var(--way);stroke-width:4;stroke-linejoin:round;opacity:.55}.way-mark{fill:var(--way)}.way-number{fill:#fff;text-anchor:middle;font-weight:700}',
    '.way-title{font-size:13px;fill:var(--way);font-weight:600}.way-label rect{fill:var(--page);stroke:var(--way)}',
  ].join('')
}
