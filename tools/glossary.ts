/** The glossary of handbook and interface: one word, one meaning, in both languages. */
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'

export type Language = 'ja' | 'en'

export interface Term {
  readonly en: string
  readonly ja: string
  readonly means: Readonly<Record<Language, string>>
  readonly not?: Readonly<Partial<Record<Language, readonly string[]>>>
}

export interface Text {
  readonly file: string
  readonly language: Language
  readonly text: string
}

export function readGlossary(text: string): readonly Term[] {
  return parse(text) as Term[]
}

/** Texts people read: chapters, plans, and what the interface says in either language. */
export function textsIn(root: string): Text[] {
  const read = (pattern: string, language: Language, only = (line: string) => line): Text[] =>
    globSync(pattern, { cwd: root, exclude: (path) => path === 'node_modules' || path.endsWith('glossary.md') })
      .toSorted()
      .filter((file) => !file.endsWith('.test.ts'))
      .map((file) => {
        const lines = readFileSync(join(root, file), 'utf8').split('\n')
        return { file, language, text: lines.map(only).join('\n') }
      })
  return [
    ...read('manuscript/ja/**/*.md', 'ja'),
    ...read('manuscript/en/**/*.md', 'en'),
    ...read('plans/*.ja.md', 'ja'),
    ...read('plans/execplan-ja-*.md', 'ja'),
    ...read('plans/*.en.md', 'en'),
    // What the interface says in English is what it is translated by.
    ...read('src/cli/japanese/*.json', 'ja', (line) => literalsIn(line)[1] ?? ''),
    ...read('src/cli/japanese/*.json', 'en', (line) => literalsIn(line)[0] ?? ''),
    ...read('src/**/*.ts', 'ja', (line) => literalsIn(line).filter(isJapanese).join(' ')),
    ...read('src/{cli,lab}/**/*.ts', 'en', (line) => (/\ben: /.test(line) ? (literalsIn(line)[0] ?? '') : '')),
    ...read('manuscript/.vitepress/*.ts', 'ja', (line) => literalsIn(line).filter(isJapanese).join(' ')),
  ]
}

/** What stands between quotes in a line of code. */
function literalsIn(line: string): string[] {
  return [...line.matchAll(/(['"`])((?:\\.|(?!\1).)*)\1/g)].map(([, , text = '']) => text)
}

function isJapanese(text: string): boolean {
  return /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u.test(text)
}

/** `line: word, say term`, for every word that must not be used. What is code is left alone. */
export function findMisused(glossary: readonly Term[], language: Language, text: string): string[] {
  const words = glossary.flatMap((term) =>
    (term.not?.[language] ?? []).map((word) => ({ word: new RegExp(word, 'gu'), say: term[language] })),
  )
  let isCode = false
  return text.split('\n').flatMap((line, at) => {
    if (/^\s*(?:```|~~~)/.test(line)) isCode = !isCode
    if (isCode) return []
    const prose = line.replaceAll(/`[^`]*`/g, '')
    return words.flatMap(({ word, say }) =>
      [...prose.matchAll(word)].map(([found]) => `${at + 1}: '${found}', say '${say}'`),
    )
  })
}

export function glossaryPage(glossary: readonly Term[], language: Language): string {
  const head =
    language === 'ja' ? ['# 用語集', '', '| 用語 | 英語 | 意味 |'] : ['# Glossary', '', '| term | Japanese | meaning |']
  const collator = new Intl.Collator(language)
  const rows = glossary
    .toSorted((a, b) => collator.compare(a[language], b[language]))
    .map((term) => `| ${term[language]} | ${language === 'ja' ? term.en : term.ja} | ${term.means[language]} |`)
  return `${[...head, '| --- | --- | --- |', ...rows].join('\n')}\n`
}
