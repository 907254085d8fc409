import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { findMisused, glossaryPage, readGlossary, textsIn } from './glossary.ts'

const root = join(import.meta.dirname, '..')
const glossary = readGlossary(readFileSync(join(root, 'manuscript/glossary.yaml'), 'utf8'))

test('handbook and interface use the words of the glossary', () => {
  const texts = textsIn(root)
  for (const [language, name] of [
    ['ja', 'chapter8-backup.md'],
    ['en', 'chapter8-backup.md'],
    ['ja', 'sentences.json'],
    ['en', 'descriptions.json'],
    ['ja', 'first-restore.ja.md'],
    ['ja', 'src/cli/text.ts'],
    ['en', 'src/cli/text.ts'],
    ['ja', 'src/plans/lint.ts'],
    ['ja', 'config.ts'],
  ] as const) {
    const words = texts.filter((one) => one.language === language && one.file.endsWith(name)).map(({ text }) => text)
    assert.match(words.join(''), language === 'ja' ? /\p{Script=Hiragana}/u : /[a-z]{3}/, `${name} in ${language}`)
  }
  const found = texts.flatMap(({ file, language, text }) =>
    findMisused(glossary, language, text).map((one) => `${file}:${one}`),
  )
  assert.deepEqual(found, [])
})

test('a word that must not be used is found where it is prose, and left alone where it is code', () => {
  assert.deepEqual(findMisused(glossary, 'ja', 'バックアップを\nリストアする。`リストア`'), [
    "2: 'リストア', say '復元'",
  ])
  assert.deepEqual(findMisused(glossary, 'ja', '```sh\nリストア\n```\nコンテナーとコンテナ'), [
    "4: 'コンテナー', say 'コンテナ'",
  ])
  assert.deepEqual(findMisused(glossary, 'ja', 'プロセッサーとメモリー'), [])
})

test('every term has both languages and a meaning, none stands there twice, and the pages of the glossary say the same', () => {
  for (const { en, ja, means } of glossary) assert.ok(en && ja && means.en && means.ja, en)
  assert.equal(new Set(glossary.map(({ en }) => en)).size, glossary.length)
  assert.equal(new Set(glossary.map(({ ja }) => ja)).size, glossary.length)
  for (const language of ['ja', 'en'] as const) {
    const page = readFileSync(join(root, 'manuscript', language, 'glossary.md'), 'utf8')
    assert.equal(page, glossaryPage(glossary, language), 'npm run handbook makes the page anew')
  }
})
