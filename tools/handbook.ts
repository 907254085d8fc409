/**
 * `npm run handbook`: checks the handbook and makes a website of it, `manuscript/.vitepress/dist`.
 *
 * Its programs have a lock of their own, because the product needs none of them; they are installed on the first call.
 * What is checked: terms against the glossary, commands against the evidence of the plans that ran them, Japanese against the rules for technical writing, every link (by the
 * builder). The pages of the glossary are made here.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findMisused, glossaryPage, readGlossary, textsIn } from './glossary.ts'
import { blocksIn, readProofs, unproven } from './proofs.ts'

const root = join(import.meta.dirname, '..')
const manuscript = join(root, 'manuscript')

const glossary = readGlossary(readFileSync(join(manuscript, 'glossary.yaml'), 'utf8'))
for (const language of ['ja', 'en'] as const) {
  writeFileSync(join(manuscript, language, 'glossary.md'), glossaryPage(glossary, language))
}
const misused = textsIn(root).flatMap(({ file, language, text }) =>
  findMisused(glossary, language, text).map((found) => `${file}:${found}`),
)
const proofs = await readProofs(manuscript)
const wrong = [...misused, ...unproven(blocksIn(manuscript), proofs)]
if (wrong.length > 0) {
  process.stderr.write(`${wrong.join('\n')}\n`)
  process.exit(1)
}
// What was run, and when, for the builder.
writeFileSync(join(manuscript, '.vitepress/proofs.json'), JSON.stringify(Object.fromEntries(proofs)))
if (!existsSync(join(manuscript, 'node_modules/vitepress'))) run('npm', ['ci', '--no-audit', '--no-fund'])
run(join(manuscript, 'node_modules/.bin/textlint'), ['ja/**/*.md'])
run(join(manuscript, 'node_modules/.bin/vitepress'), ['build', '.'])

function run(program: string, args: readonly string[]): void {
  execFileSync(program, args, { cwd: manuscript, stdio: 'inherit' })
}
