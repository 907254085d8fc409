/** YAML of a block, within bounds: no anchors, no tags of its own making, nothing deeper than needed. */
import { parseDocument } from 'yaml'
import { limits } from '#base/limits.ts'
import type { Value } from './value.ts'

export interface Complaint {
  /** Line in the block, from 1. */
  readonly line: number
  readonly text: string
}

const deepest = 8

export function readYaml(content: string): { readonly value: Value } | { readonly complaint: Complaint } {
  if (Buffer.byteLength(content) > limits.plans.blockBytes) {
    return { complaint: { line: 1, text: `the block is longer than ${limits.plans.blockBytes} bytes` } }
  }
  // Before it is parsed: a parser goes as deep as brackets do.
  const brackets = [...content.matchAll(/[[\]{}]/g)].length
  if (brackets > 1_000) return { complaint: { line: 1, text: 'the block has too many brackets' } }
  const document = parseDocument(content, { version: '1.2', schema: 'core', uniqueKeys: true, stringKeys: true })
  const [problem] = [...document.errors, ...document.warnings]
  if (problem) {
    return { complaint: { line: problem.linePos?.[0].line ?? 1, text: problem.message.split('\n')[0] ?? 'is no YAML' } }
  }
  try {
    const value: unknown = document.toJS({ maxAliasCount: 0 })
    return isValue(value, 0)
      ? { value }
      : {
          complaint: {
            line: 1,
            text: `the block goes deeper than ${deepest} levels, or holds what JSON has no word for`,
          },
        }
  } catch {
    return { complaint: { line: 1, text: 'anchors and aliases are not taken' } }
  }
}

function isValue(value: unknown, depth: number): value is Value {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return true
  if (typeof value === 'number') return Number.isFinite(value)
  if (typeof value !== 'object' || depth > deepest) return false
  return Object.values(value).every((part) => isValue(part, depth + 1))
}
