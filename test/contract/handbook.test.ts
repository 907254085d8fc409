/** The handbook as its readers have it: built from the manuscript, opened in a browser, searched in both languages. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { waitFor } from '#base/clock.ts'
import { type Browser, type Page, startBrowser } from '../browser.ts'
import { freePort } from '../own-names.ts'

const root = join(import.meta.dirname, '../..')
const built = join(root, 'manuscript/.vitepress/dist')
const types: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
}

describe('the handbook', () => {
  const closing = new AsyncDisposableStack()
  let site: string
  let browser: Browser

  before(async () => {
    const build = promisify(execFile)(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', 'tools/handbook.ts'],
      { cwd: root, maxBuffer: 2 ** 24 },
    )
    const port = await freePort()
    const server = createServer((request, reply) => {
      const path = normalize(decodeURIComponent(new URL(request.url ?? '/', 'http://site').pathname))
      const file = join(built, path.endsWith('/') ? `${path}index.html` : path)
      readFile(file).then(
        (content) =>
          reply.writeHead(200, { 'content-type': types[extname(file)] ?? 'application/octet-stream' }).end(content),
        () => reply.writeHead(404).end(),
      )
    }).listen(port, '127.0.0.1')
    closing.defer(() => void server.close())
    site = `http://127.0.0.1:${port}`
    await build
    browser = closing.use(await startBrowser(undefined, [port]))
  })
  after(() => closing.disposeAsync())

  async function search(page: Page, words: string): Promise<readonly string[]> {
    await page.run(`document.querySelector('.VPNavBarSearch button').click()`)
    await waitFor(() => page.run(`document.querySelector('#localsearch-input') !== null`), {
      what: 'the search',
      timeoutMs: 10_000,
    })
    await page.run(
      `(() => { const input = document.querySelector('#localsearch-input'); input.value = ${JSON.stringify(words)}; input.dispatchEvent(new Event('input', { bubbles: true })) })()`,
    )
    const found = () =>
      page.run<string[]>(`[...document.querySelectorAll('#localsearch-list a')].map((one) => one.getAttribute('href'))`)
    await waitFor(async () => (await found()).length > 0, { what: `anything about ${words}`, timeoutMs: 10_000 })
    return found()
  }

  for (const { language, heading, words, chapter } of [
    { language: 'ja', heading: '第2章 アーキテクチャと構成要素', words: '復元訓練', chapter: 'chapter8' },
    {
      language: 'en',
      heading: 'Chapter 2: Architecture and components',
      words: 'recovery time objective',
      chapter: 'chapter8',
    },
  ]) {
    test(`is read and searched in ${language}`, async () => {
      const page = await browser.page()
      await page.open(`${site}/${language}/part1/chapter2-architecture.html`)
      const title = () => page.run<string>(`document.querySelector('h1').innerText`)
      await waitFor(async () => (await title()).includes(heading), { what: heading, timeoutMs: 10_000 })
      assert.equal(await page.run(`document.documentElement.lang`), language)
      const picture = await page.run<number>(
        `document.querySelector('main img').decode().then(() => document.querySelector('main img').naturalWidth)`,
      )
      assert.ok(picture > 300, 'the picture of the architecture is there')
      const hits = await search(page, words)
      assert.ok(
        hits.some((href) => href.includes(chapter) && href.includes(`/${language}/`)),
        hits.join(' '),
      )
      assert.deepEqual(page.complaints, [])
    })
  }
})
