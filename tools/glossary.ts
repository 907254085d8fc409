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

/** Texts people read: chapters, plans, and what the interface says in Japanese. */
export function textsIn(root: string): Text[] {
  const read = (pattern: string, language: Language): Text[] =>
    globSync(pattern, { cwd: root, exclude: (path) => path === 'node_modules' || path.endsWith('glossary.md') })
      .toSorted()
      .map((file) => ({ file, language, text: readFileSync(join(root, file), 'utf8') }))
  return [
    ...read('manuscript/ja/**/*.md', 'ja'),
    ...read('manuscript/en/**/*.md', 'en'),
    ...read('src/cli/japanese/*.json', 'ja'),
    ...read('plans/*ja*.md', 'ja'),
  ]
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
