/** Where a part is drawn. */
import type { Architecture } from '#views/architecture/graph.ts'

/** A part as it is drawn at this level: itself, one of the others, or its kind. */
export function shownAs(id: string, { parts }: Architecture): string {
  const kind = id.split('/', 1)[0] ?? ''
  return [id, `${kind}/*`, kind].find((one) => parts.some((part) => part.id === one)) ?? id
}
