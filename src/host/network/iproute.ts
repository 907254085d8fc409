/** How iproute2 is called, and how its JSON is read: `ip.ts` and `network-state.ts` stand on this. */
import type { Argv } from '../host.ts'
import type { NetworkPlace } from './netns.ts'

export type Row = Readonly<Record<string, unknown>>

export function iproute(program: 'ip' | 'bridge' | 'tc', { netns }: NetworkPlace, ...words: string[]): Argv {
  return netns === undefined ? [program, ...words] : [program, '-netns', netns, ...words]
}

/** Both programs print nothing at all where their list is empty. */
export function rowsIn(text: string): Row[] {
  return text.trim() === '' ? [] : rows(JSON.parse(text))
}

export function rows(value: unknown): Row[] {
  return Array.isArray(value) ? value.map(rowOf) : []
}

export function rowOf(value: unknown): Row {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
