/** A reply as the user asked to see it: table, JSON, YAML, NDJSON or ids only. */
import { Fault } from '#base/fault.ts'
import type { OutputFormat } from './arguments.ts'
import { viewerFile } from '#rest/viewer-file.ts'
import { type Language, say } from './text.ts'

export interface PrintOptions {
  readonly format: OutputFormat
  readonly columns?: readonly string[] | undefined
  readonly id?: string | undefined
  /** Member that is text to be printed as it is. */
  readonly raw?: string | undefined
  /** It is printed as the file a viewer opens. */
  readonly isViewerFile?: boolean | undefined
  readonly language: Language
  readonly width: number | undefined
}

/** The text to print, without a trailing newline. Tables and YAML load their libraries only when asked for. */
export async function printed(data: unknown, options: PrintOptions): Promise<string> {
  switch (options.format) {
    case 'json':
      return JSON.stringify(data, null, 2)
    case 'ndjson':
      return (Array.isArray(data) ? data : [data]).map((row) => JSON.stringify(row)).join('\n')
    case 'yaml':
      return (await import('yaml')).stringify(data).trimEnd()
    case 'id':
      return idsOf(data, options.id).join('\n')
    case 'table':
      return forPeople(data, options)
    default:
      return options.format satisfies never
  }
}

function idsOf(data: unknown, id: string | undefined): string[] {
  if (typeof data === 'string' || typeof data === 'number') return [String(data)]
  return (Array.isArray(data) ? data : [data]).map((row: unknown) => {
    const value = isRow(row) && id !== undefined ? row[id] : row
    if (typeof value === 'string' || typeof value === 'number') return String(value)
    throw new Fault('invalid', 'this command has no id to print: use another --output')
  })
}

async function forPeople(data: unknown, options: PrintOptions): Promise<string> {
  if (data === null || data === undefined) return ''
  if (typeof data === 'string') return data.trimEnd()
  const { raw, columns, language, width, isViewerFile } = options
  if (isViewerFile) return viewerFile(data).trimEnd()
  if (raw !== undefined)
    return rowsOf(data)
      .map((row) => rawText(row[raw]))
      .join('\n')
      .trimEnd()
  const { tableText, factsText, cellText } = await import('./table.ts')
  if (Array.isArray(data)) {
    if (data.length === 0) return say(language, 'nothing')
    if (!data.every(isRow)) return data.map(cellText).join('\n')
    return tableText(data, columns ?? [...new Set(data.flatMap((row) => Object.keys(row)))], width)
  }
  if (!isRow(data)) return cellText(data)
  // What has parts of its own is easier to read as YAML than as one line of JSON per member.
  const isNested = Object.values(data).some((value) => typeof value === 'object' && value !== null)
  return isNested ? (await import('yaml')).stringify(data).trimEnd() : factsText(data)
}

function rowsOf(data: unknown): Record<string, unknown>[] {
  return (Array.isArray(data) ? data : [data]).filter(isRow)
}

function rawText(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : ''
}

function isRow(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
