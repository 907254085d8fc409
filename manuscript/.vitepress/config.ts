/** The handbook as a website: both languages, with a search of its own that asks nobody else. */
import { readFileSync } from 'node:fs'
import { defineConfig, type MarkdownOptions } from 'vitepress'
import type { Proof } from '../../tools/proofs.ts'

const ja = {
  nav: [
    { text: '目次', link: '/ja/' },
    { text: '用語集', link: '/ja/glossary' },
  ],
  sidebar: {
    '/ja/': [
      {
        text: '第1部 基礎',
        items: [{ text: '第2章 アーキテクチャと構成要素', link: '/ja/part1/chapter2-architecture' }],
      },
      { text: '第3部 運用', items: [{ text: '第8章 バックアップと復元', link: '/ja/part3/chapter8-backup' }] },
      { text: '用語集', link: '/ja/glossary' },
    ],
  },
  outline: { label: 'この章の内容' },
  docFooter: { prev: '前へ', next: '次へ' },
  darkModeSwitchLabel: '表示',
  sidebarMenuLabel: 'メニュー',
  returnToTopLabel: '先頭へ',
}

const en = {
  nav: [
    { text: 'Contents', link: '/en/' },
    { text: 'Glossary', link: '/en/glossary' },
  ],
  sidebar: {
    '/en/': [
      {
        text: 'Part 1: Basics',
        items: [{ text: 'Chapter 2: Architecture and components', link: '/en/part1/chapter2-architecture' }],
      },
      {
        text: 'Part 3: Operation',
        items: [{ text: 'Chapter 8: Backup and restore', link: '/en/part3/chapter8-backup' }],
      },
      { text: 'Glossary', link: '/en/glossary' },
    ],
  },
}

/** Japanese has no spaces between words: what is found is pairs of letters, and words of letters as they are. */
function words(text: string): string[] {
  return (
    text
      .toLowerCase()
      .match(/[\p{Script=Latin}\p{N}_-]+|[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}ー]{1,2}/gu) ?? []
  )
}

const proofs = JSON.parse(readFileSync(new URL('proofs.json', import.meta.url), 'utf8')) as Readonly<
  Record<string, Proof>
>

/** A step of a plan that was run can be linked to. */
function anchorOf(content: string): string {
  const id = /^id:\s*([a-z][a-z0-9-]*)/m.exec(content)?.[1]
  return id === undefined ? '' : `<a id="step-${id}"></a>`
}

/** Below a block of commands stands who ran it, when, and what came of it. */
const withProofs: MarkdownOptions['config'] = (markdown) => {
  const { fence } = markdown.renderer.rules
  if (!fence) throw new Error('the builder knows no blocks of code')
  markdown.renderer.rules.fence = (tokens, at, options, env, self) => {
    const block = fence(tokens, at, options, env, self)
    if (tokens[at]?.info.trim() === 'step') return `${anchorOf(tokens[at].content)}${block}`
    const proof = proofs[/\bproven=(\S+)/.exec(tokens[at]?.info ?? '')?.[1] ?? '']
    const { relativePath = '' } = env as { readonly relativePath?: string }
    return proof
      ? `${block}${provenLine(proof, relativePath.startsWith('ja/') ? 'ja' : 'en', markdown.utils.escapeHtml)}`
      : block
  }
}

function provenLine(
  { step, version, ended, tookMs, recorded, evidence }: Proof,
  language: 'ja' | 'en',
  escape: (text: string) => string,
): string {
  const [when, took] = [`${ended.slice(0, 16).replace('T', ' ')} UTC`, (tookMs / 1000).toFixed(1)]
  const [plan = '', id = ''] = step.split('#')
  // The document as it was when it was run, which is part of the evidence.
  const there = `/runs/${encodeURIComponent(evidence)}/document.html#step-${encodeURIComponent(id)}`
  const link = `<a href="${there}"><code>${escape(id)}</code></a>`
  const said =
    language === 'ja'
      ? `バージョン ${version} で ${when} に証明済み (${took} 秒)。計画 <code>${escape(plan)}</code> の手順 ${link}、証跡 <code>${escape(evidence)}</code>`
      : `Proven on version ${version}, ${when} (${took} s), by step ${link} of <code>${escape(plan)}</code>; evidence <code>${escape(evidence)}</code>`
  const output = Object.entries(recorded).map(([field, value]) => `${field}: ${value}`)
  const shown = output.length === 0 ? '' : `<pre class="proof-output">${escape(output.join('\n'))}</pre>`
  return `<div class="tip custom-block proof">${shown}<p>✓ ${said}</p></div>\n`
}

export default defineConfig({
  markdown: { config: withProofs, languageAlias: { step: 'yaml', plan: 'yaml' } },
  title: 'Hakobune',
  outDir: './.vitepress/dist',
  cleanUrls: false,
  lastUpdated: false,
  head: [['link', { rel: 'icon', type: 'image/svg+xml', href: '/icon.svg' }]],
  locales: {
    ja: { label: '日本語', lang: 'ja', themeConfig: ja },
    en: { label: 'English', lang: 'en', themeConfig: en },
  },
  themeConfig: {
    search: {
      provider: 'local',
      options: {
        locales: {
          ja: {
            translations: {
              button: { buttonText: '検索' },
              modal: {
                noResultsText: '見つかりません',
                footer: { selectText: '選択', navigateText: '移動', closeText: '閉じる' },
              },
            },
          },
        },
        // What was run is linked to; what is looked for is in the chapters.
        _render: (source, env, markdown) =>
          String(env.relativePath).startsWith('runs/') ? '' : markdown.render(source, env),
        miniSearch: { options: { tokenize: words } },
      },
    },
  },
  // Diagrams lie beside the manuscript, because they are made of a running node and not written.
  vite: { server: { fs: { allow: ['..'] } } },
})
