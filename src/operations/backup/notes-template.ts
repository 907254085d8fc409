/** Notes of a backup from a template such as `{{guestname}} before the upgrade`. */
import { invalid } from '#base/fault.ts'

const names = ['cluster', 'guestname', 'node', 'vmid'] as const
export type NoteFacts = Readonly<Record<(typeof names)[number], string>>

/** @throws Fault `invalid` for a variable nobody knows */
export function checkNotesTemplate(template: string): void {
  for (const [, name = ''] of template.matchAll(/\{\{(.*?)\}\}/g)) {
    if (!(names as readonly string[]).includes(name.trim())) {
      throw invalid({
        'notes-template': `unknown variable '{{${name}}}': use ${names.map((one) => `{{${one}}}`).join(' ')}`,
      })
    }
  }
}

export function notesFrom(template: string, facts: NoteFacts): string {
  const unescaped = template.replaceAll(/\\([\\n])/g, (_, letter: string) => (letter === 'n' ? '\n' : '\\'))
  return unescaped.replaceAll(/\{\{(.*?)\}\}/g, (whole, name: string) => {
    const known = names.find((one) => one === name.trim())
    return known === undefined ? whole : facts[known]
  })
}
