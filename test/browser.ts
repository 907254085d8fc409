/**
 * A real browser for tests: Debian's Chromium without a window, driven over its own debugging protocol, because
 * that takes a WebSocket and nothing else.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { waitFor } from '#base/clock.ts'

export interface Page {
  readonly open: (url: string) => Promise<void>
  /** Runs a script in the page and returns what it, or the promise it returned, came to. */
  readonly run: <T>(script: string) => Promise<T>
  readonly setCookie: (cookie: { name: string; value: string; url: string }) => Promise<void>
  /** What the page complained about. */
  readonly complaints: readonly string[]
}

export interface Browser extends AsyncDisposable {
  readonly page: () => Promise<Page>
}

interface Answer {
  readonly id?: number
  readonly method?: string
  readonly sessionId?: string
  readonly result?: Record<string, unknown>
  readonly error?: { readonly message: string }
  readonly params?: Record<string, unknown>
}

/** @param certificateHash SHA-256 of the public key that is trusted beside the public ones, in base64 */
export async function startBrowser(certificateHash: string): Promise<Browser> {
  const profile = await mkdtemp(join(tmpdir(), 'hako-browser-'))
  const browser = spawn(
    'chromium',
    [
      '--headless=new',
      // Root may not use Chromium's own sandbox; these pages are the test's.
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--disable-extensions',
      '--disable-background-networking',
      '--remote-debugging-port=0',
      `--user-data-dir=${profile}`,
      `--ignore-certificate-errors-spki-list=${certificateHash}`,
      'about:blank',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'], detached: true },
  )
  const wire = await Wire.open(await addressOf(browser))
  return {
    page: () => openPage(wire),
    async [Symbol.asyncDispose]() {
      const ended = once(browser, 'exit')
      await wire.ask('Browser.close').catch(() => browser.kill('SIGKILL'))
      await ended
      await rm(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
    },
  }
}

async function addressOf(browser: ChildProcess): Promise<string> {
  const printed: string[] = []
  if (!browser.stderr) throw new Error('the browser has no standard error')
  for await (const line of createInterface({ input: browser.stderr })) {
    printed.push(line)
    const address = /^DevTools listening on (ws:\S+)/.exec(line)?.[1]
    if (address !== undefined) {
      browser.stderr.resume()
      return address
    }
  }
  throw new Error(`the browser did not start:\n${printed.join('\n')}`)
}

async function openPage(wire: Wire): Promise<Page> {
  const { targetId } = await wire.ask('Target.createTarget', { url: 'about:blank' })
  const { sessionId } = await wire.ask('Target.attachToTarget', { targetId, flatten: true })
  const ask = (method: string, params = {}) => wire.ask(method, params, String(sessionId as string))
  const complaints: string[] = []
  wire.onEvent(({ sessionId: from, method, params }) => {
    if (from !== sessionId) return
    if (method === 'Runtime.exceptionThrown' || method === 'Log.entryAdded') complaints.push(JSON.stringify(params))
  })
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await ask(`${domain}.enable`)
  return {
    complaints,
    setCookie: async (cookie) => void (await ask('Network.setCookie', { ...cookie, secure: true, sameSite: 'None' })),
    async open(url) {
      await ask('Page.navigate', { url })
      // Not by the event: the empty page a target begins with has one too.
      const { href } = new URL(url)
      const expression = "document.readyState === 'complete' && location.href"
      const isThere = async () => {
        const { result } = await ask('Runtime.evaluate', { expression, returnByValue: true })
        return (result as { value: unknown }).value === href
      }
      await waitFor(() => isThere().catch(() => false), { what: `the page ${href}`, timeoutMs: 60_000 })
    },
    async run<T>(expression: string) {
      const facts = { expression, awaitPromise: true, returnByValue: true }
      const { result, exceptionDetails } = await ask('Runtime.evaluate', facts)
      if (exceptionDetails !== undefined) throw new Error(`the page threw: ${JSON.stringify(exceptionDetails)}`)
      return (result as { value: T }).value
    },
  }
}

class Wire {
  readonly #socket: WebSocket
  readonly #waiting = new Map<number, PromiseWithResolvers<Record<string, unknown>>>()
  readonly #listeners = new Set<(event: Answer) => void>()
  #lastId = 0

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.addEventListener('message', ({ data }) => this.#take(JSON.parse(String(data)) as Answer))
    socket.addEventListener('close', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the browser has gone'))
    })
  }

  static async open(address: string): Promise<Wire> {
    const socket = new WebSocket(address)
    const wire = new Wire(socket)
    await once(socket, 'open')
    return wire
  }

  ask(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    const id = ++this.#lastId
    const waiting = Promise.withResolvers<Record<string, unknown>>()
    this.#waiting.set(id, waiting)
    this.#socket.send(JSON.stringify({ id, method, params, ...(sessionId === undefined ? {} : { sessionId }) }))
    return waiting.promise
  }

  onEvent(listener: (event: Answer) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #take(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id ?? 0)
    if (!waiting) return this.#listeners.forEach((listener) => listener(answer))
    this.#waiting.delete(answer.id ?? 0)
    if (answer.error) waiting.reject(new Error(answer.error.message))
    else waiting.resolve(answer.result ?? {})
  }
}
