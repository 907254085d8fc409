/** Files a plan names in its context, by path from the root of its project. */
import { posix } from 'node:path'
import type { Plan } from './plan.ts'

export interface NamedFile {
  readonly path: string
  readonly line: number
  /** It leads out of the project. */
  readonly isOutside: boolean
  /** A step says that it makes it. */
  readonly isMade: boolean
}

const inTicks = /`([^`\n]{1,300})`/g
/** With a folder and an ending: `docs/x.md`, not `hako plan` or `GET /nodes`. */
const isPath = /^\.{0,2}[\w@./-]*\/?[\w@.-]*\/[\w@.-]+\.[a-z0-9]{1,8}$/i

export function namedFiles({ document, steps }: Plan): NamedFile[] {
  const section = document.sections.get('context')
  if (!section) return []
  const saidInSteps = document.sections.get('steps')?.items.map(({ words }) => words) ?? []
  const makes = steps.map((step) => step.makes ?? '')
  return section.blocks.flatMap((block) => {
    if (block.kind === 'fenced') return []
    const rows = document.text.slice(block.start, block.end).split(/\r\n|\n|\r/)
    return rows.flatMap((row, at) =>
      [...row.matchAll(inTicks)]
        .map(([, path = '']) => path)
        .filter((path) => isPath.test(path))
        .map((path) => {
          const name = posix.basename(path)
          const isMade =
            makes.includes(`file/${path}`) ||
            saidInSteps.some((text) => text.includes(`\`${path}\``) || text.includes(`\`${name}\``))
          return { path, line: block.line + at, isOutside: leadsOut(path), isMade }
        }),
    )
  })
}

function leadsOut(path: string): boolean {
  const plain = posix.normalize(path)
  return posix.isAbsolute(path) || plain === '..' || plain.startsWith('../')
}
