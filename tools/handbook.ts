/**
 * `npm run handbook`: checks the handbook and makes a website of it, `manuscript/.vitepress/dist`.
 *
 * Its programs have a lock of their own, because the product needs none of them; they are installed on the first call.
 * What is checked: terms against the glossary, Japanese against the rules for technical writing, every link (by the
 * builder). The pages of the glossary are made here.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findMisused, glossaryPage, readGlossary, textsIn } from './glossary.ts'

const root = join(import.meta.dirname, '..')
const manuscript = join(root, 'manuscript')

const glossary = readGlossary(readFileSync(join(manuscript, 'glossary.yaml'), 'utf8'))
for (const language of ['ja', 'en'] as const) {
  writeFileSync(join(manuscript, language, 'glossary.md'), glossaryPage(glossary, language))
}
const misused = textsIn(root).flatMap(({ file, language, text }) =>
  findMisused(glossary, language, text).map((found) => `${file}:${found}`),
)
if (misused.length > 0) {
  process.stderr.write(`${misused.join('\n')}\n`)
  process.exit(1)
}
if (!existsSync(join(manuscript, 'node_modules/vitepress'))) run('npm', ['ci', '--no-audit', '--no-fund'])
run(join(manuscript, 'node_modules/.bin/textlint'), ['ja/**/*.md'])
run(join(manuscript, 'node_modules/.bin/vitepress'), ['build', '.'])

function run(program: string, args: readonly string[]): void {
  execFileSync(program, args, { cwd: manuscript, stdio: 'inherit' })
}
