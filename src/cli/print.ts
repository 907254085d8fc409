/** A reply as the user asked to see it: table, JSON, YAML, NDJSON or ids only. */
import { Fault } from '#base/fault.ts'
import type { OutputFormat } from './arguments.ts'
import { type Language, say } from './text.ts'

export interface PrintOptions {
  readonly format: OutputFormat
  readonly columns?: readonly string[] | undefined
  readonly id?: string | undefined
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

async function forPeople(data: unknown, { columns, language, width }: PrintOptions): Promise<string> {
  if (data === null || data === undefined) return ''
  const { tableText, factsText, cellText } = await import('./table.ts')
  if (Array.isArray(data)) {
    if (data.length === 0) return say(language, 'nothing')
    if (!data.every(isRow)) return data.map(cellText).join('\n')
    return tableText(data, columns ?? [...new Set(data.flatMap((row) => Object.keys(row)))], width)
  }
  return isRow(data) ? factsText(data) : cellText(data)
}

function isRow(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
