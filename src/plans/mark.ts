/**
 * The mark behind a box the runner ticked: when, and which evidence says so.
 *
 *   - [x] Back it up <!-- hako: proven 2026-01-01T00:00:41Z 20260101T000030Z-plan-first-restore-4711 -->
 *
 * A comment, so that the line reads as it was written. By itself it proves nothing: whoever can write the document can
 * write a mark. Only evidence that verifies, of a step that is still the same, makes a box proven.
 */
export const markKinds = ['proven', 'skipped', 'waived'] as const
export type MarkKind = (typeof markKinds)[number]

export interface ProofMark {
  readonly kind: MarkKind
  /** ISO time to the second, UTC. */
  readonly at: string
  readonly evidence: string
}

const shape =
  /[ \t]*<!-- hako: (proven|skipped|waived) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) ([a-zA-Z0-9][a-zA-Z0-9-]{0,80}) -->/

export function proofMarkIn(text: string): ProofMark | undefined {
  const [, kind, at = '', evidence = ''] = shape.exec(text) ?? []
  const known = markKinds.find((one) => one === kind)
  return known && { kind: known, at, evidence }
}

export function withoutMark(text: string): string {
  return text.replace(shape, '').trim()
}

export function printMark({ kind, at, evidence }: ProofMark): string {
  return `<!-- hako: ${kind} ${at} ${evidence} -->`
}

/** Where in `text` a mark stands, with the space before it. */
export function placeOfMark(text: string): { readonly start: number; readonly end: number } | undefined {
  const found = shape.exec(text)
  return found ? { start: found.index, end: found.index + found[0].length } : undefined
}
