/** The handbook as a website: both languages, with a search of its own that asks nobody else. */
import { defineConfig } from 'vitepress'

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

export default defineConfig({
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
        miniSearch: { options: { tokenize: words } },
      },
    },
  },
  // Diagrams lie beside the manuscript, because they are made of a running node and not written.
  vite: { server: { fs: { allow: ['..'] } } },
})
