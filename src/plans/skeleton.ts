/** A new plan: its twelve sections, and one step that runs, to begin from. */
import type { PlanDocument } from './document.ts'
import { type SectionKey, sectionKeys, sectionNames } from './section.ts'

export interface SkeletonFacts {
  readonly id: string
  readonly title: string
  /** `2026-01-01` */
  readonly date: string
  readonly language: PlanDocument['language']
}

export function skeleton({ id, title, date, language }: SkeletonFacts): string {
  const isJapanese = language === 'ja'
  const bodies: Partial<Record<SectionKey, string>> = {
    metadata: isJapanese
      ? `- 計画 ID: ${id}\n- 表題: ${title}\n- 作成日: ${date}`
      : `- Plan ID: ${id}\n- Title: ${title}\n- Date created: ${date}`,
    steps: `- [ ] ${isJapanese ? 'ノードが応答する。' : 'The node answers.'}\n\n${indented(firstStep)}`,
    recovery: isJapanese
      ? '- どこで中断しても、`hako plan resume` が未証明の最初の手順から再開します。'
      : '- Interrupted anywhere, `hako plan resume` goes on at the first step that is not proven.',
  }
  const sections = sectionKeys.map((key, at) => {
    const body = bodies[key]
    return `## ${at + 1}. ${sectionNames[key][language]}${body === undefined ? '' : `\n\n${body}`}`
  })
  return `# ${title}\n\n${sections.join('\n\n')}\n`
}

const firstStep = `\`\`\`step
id: node-answers
class: read
run: { api: GET /version }
expect: { version: { exists: true } }
\`\`\``

function indented(text: string): string {
  return text.replaceAll(/^(?=.)/gm, '  ')
}
