/**
 * A real browser for tests: Debian's Chromium without a window, driven over its own debugging protocol, because
 * that takes two pipes and nothing else.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { waitFor } from '#base/clock.ts'
import { inNetns } from '#host/network/netns.ts'
import { loopbackOfItsOwn } from './loopback-of-its-own.ts'

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

/**
 * The browser has a network of its own, because Chromium drops every request under way, even to this machine, when a card
 * or an address of its network comes or goes.
 *
 * @param certificate whose key is trusted beside the public ones, if any
 * @param ports of 127.0.0.1 that it reaches
 */
export async function startBrowser(certificate: Buffer | undefined, ports: readonly number[]): Promise<Browser> {
  await using undo = new AsyncDisposableStack()
  const profile = await mkdtemp(join(tmpdir(), 'hako-browser-'))
  undo.defer(() => rm(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }))
  const { netns } = undo.use(await loopbackOfItsOwn(ports))
  const [program, ...args] = inNetns(netns, [
    'chromium',
    '--headless=new',
    // Root may not use Chromium's own sandbox; these pages are the test's.
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-extensions',
    '--disable-background-networking',
    '--remote-debugging-pipe',
    `--user-data-dir=${profile}`,
    ...(certificate ? [`--ignore-certificate-errors-spki-list=${keyHashOf(certificate)}`] : []),
    'about:blank',
  ])
  const browser = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'], detached: true })
  const ended = once(browser, 'exit')
  const wire = new Wire(browser)
  undo.defer(async () => {
    await wire.ask('Browser.close').catch(() => browser.kill('SIGKILL'))
    await ended
  })
  await wire.ask('Browser.getVersion')
  const made = undo.move()
  return { page: () => openPage(wire), [Symbol.asyncDispose]: () => made.disposeAsync() }
}

/** SHA-256 of the public key, in base64. */
function keyHashOf(certificate: Buffer): string {
  const key = new X509Certificate(certificate).publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(key).digest('base64')
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

/** Messages to the browser go in by its descriptor 3 and come out by 4, each with a zero byte behind it. */
class Wire {
  readonly #input: Writable
  readonly #waiting = new Map<number, PromiseWithResolvers<Record<string, unknown>>>()
  readonly #listeners = new Set<(event: Answer) => void>()
  #lastId = 0
  #gone: Error | undefined

  constructor({ stdio, stderr }: ChildProcess) {
    const [input, output] = [stdio[3] as Writable, stdio[4] as Readable]
    this.#input = input
    // Its end is seen on the output.
    input.on('error', () => {})
    const printed: string[] = []
    stderr?.setEncoding('utf8').on('data', (text: string) => printed.push(text))
    let parts: Buffer[] = []
    output.on('data', (bytes: Buffer) => {
      let from = 0
      for (let to = bytes.indexOf(0); to !== -1; to = bytes.indexOf(0, from)) {
        parts.push(bytes.subarray(from, to))
        this.#take(JSON.parse(Buffer.concat(parts).toString()) as Answer)
        ;[parts, from] = [[], to + 1]
      }
      parts.push(bytes.subarray(from))
    })
    output.on('close', () => {
      this.#gone = new Error(`the browser has gone; it said:\n${printed.join('').slice(-2_000)}`)
      for (const { reject } of this.#waiting.values()) reject(this.#gone)
    })
  }

  async ask(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    if (this.#gone) throw this.#gone
    const id = ++this.#lastId
    const waiting = Promise.withResolvers<Record<string, unknown>>()
    this.#waiting.set(id, waiting)
    const message = { id, method, params, ...(sessionId === undefined ? {} : { sessionId }) }
    this.#input.write(`${JSON.stringify(message)}\0`)
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
