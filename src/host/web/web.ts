/**
 * Asks a web server on behalf of somebody else.
 *
 * The name is resolved here, every address it has is judged (`reach.ts`), and the connection goes to those very
 * addresses; each redirect is judged anew. Rejected: to judge the name and let the client resolve it again, which
 * lets whoever answers for the name say something else the second time.
 */
import { lookup } from 'node:dns/promises'
import type { IncomingMessage, RequestOptions } from 'node:http'
import { request as requestHttps } from 'node:https'
import { isIP, type LookupFunction } from 'node:net'
import { addAbortSignal } from 'node:stream'
import { invalid, Fault, messageOf } from '#base/fault.ts'
import type { Reach } from './reach.ts'

// By name: an ordinary import reads every export, and reading one of them loads undici, in each worker and daemon.
const { request: requestHttp } = process.getBuiltinModule('node:http')

export interface WebRequest {
  readonly method: 'GET' | 'HEAD'
  readonly reach: Reach
  readonly verifyCertificates?: boolean | undefined
  /** A redirect from https to http is followed. */
  readonly mayLoseTls?: boolean
  /** How long each server may take to begin its answer. */
  readonly answerMs?: number
  readonly signal?: AbortSignal | undefined
}

export type Headers = Readonly<Record<string, string | undefined>>

export interface WebAnswer {
  /** Where it came from in the end. */
  readonly url: URL
  readonly headers: Headers
  /** To be read or destroyed. */
  readonly body: IncomingMessage
}

/** What is handed over, on top of asking. */
interface Sent {
  readonly method: WebRequest['method'] | 'POST'
  readonly headers?: Readonly<Record<string, string>>
  readonly content?: string
  readonly authorities?: readonly string[] | undefined
}

const mostRedirects = 5
const smallMs = 20_000
const protocols: readonly string[] = ['http:', 'https:']

/** @throws Fault `invalid` when the text is no URL of the web */
export function webUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !protocols.includes(url.protocol)) throw invalid({ url: 'value is no URL' })
  return url
}

/** The URL without what may be a secret in it. */
export function withoutSecrets({ origin, pathname }: URL): string {
  return `${origin}${pathname}`
}

/**
 * The answer with status 200, after redirects.
 * @throws Fault `denied` for an address that is not asked, `unavailable` when nobody answers, `timeout`, `failed` for
 *   any other answer
 */
export async function askWeb(text: string, request: WebRequest): Promise<WebAnswer> {
  let url = webUrl(text)
  const shown = withoutSecrets(url)
  for (let number = 0; number <= mostRedirects; number += 1) {
    const body = await askOnce(url, request)
    const headers = Object.fromEntries(Object.entries(body.headers).map(([name, value]) => [name, String(value)]))
    const status = body.statusCode ?? 0
    const { location } = body.headers
    if (status === 200) return { url, headers, body }
    body.destroy()
    if (status < 300 || status >= 400 || location === undefined) {
      throw new Fault('failed', `could not get '${shown}': the server answers ${status}`)
    }
    url = redirected(shown, url, location, request.mayLoseTls ?? false)
  }
  throw new Fault('failed', `'${shown}' leads from one address to the next more than ${mostRedirects} times`)
}

function redirected(shown: string, from: URL, location: string, mayLoseTls: boolean): URL {
  if (!URL.canParse(location, from.href)) throw new Fault('failed', `'${shown}' leads to something that is no URL`)
  const to = new URL(location, from)
  if (!protocols.includes(to.protocol)) throw new Fault('failed', `'${shown}' leads to '${to.protocol}'`)
  if (from.protocol === 'https:' && to.protocol === 'http:' && !mayLoseTls) {
    throw new Fault('denied', `'${shown}' leads from https to '${withoutSecrets(to)}', where anybody could answer`, {
      remedy: 'Give a checksum, or the address it leads to.',
    })
  }
  return to
}

async function askOnce(url: URL, request: Omit<WebRequest, 'method'> & Sent): Promise<IncomingMessage> {
  const { method, headers, content, authorities, reach, verifyCertificates = true, answerMs = 30_000, signal } = request
  const addresses = await judgedAddresses(url.hostname.replace(/^\[|\]$/g, ''), reach)
  if (signal?.aborted) throw new Fault('aborted', 'interrupted')
  const late = AbortSignal.timeout(answerMs)
  const options: RequestOptions & { rejectUnauthorized: boolean; ca?: string[] } = {
    method,
    // A connection of its own: one kept from before may lead where nothing leads any more.
    agent: false,
    headers: { 'User-Agent': 'Hakobune', 'Accept-Encoding': 'identity', Accept: '*/*', ...headers },
    rejectUnauthorized: verifyCertificates,
    ...(authorities === undefined ? {} : { ca: [...authorities] }),
    lookup: answering(addresses),
  }
  return new Promise((resolve, reject) => {
    const asked = (url.protocol === 'https:' ? requestHttps : requestHttp)(url, options)
    const giveUp = () =>
      asked.destroy(new Fault('timeout', `'${url.origin}' did not answer within ${answerMs / 1000} s`))
    const abort = () => asked.destroy(new Fault('aborted', 'interrupted'))
    const done = () => {
      late.removeEventListener('abort', giveUp)
      signal?.removeEventListener('abort', abort)
    }
    late.addEventListener('abort', giveUp)
    signal?.addEventListener('abort', abort)
    asked.once('response', (response: IncomingMessage) => {
      done()
      resolve(response)
    })
    asked.once('error', (cause) => {
      done()
      const told = `could not reach '${url.origin}': ${messageOf(cause)}`
      reject(cause instanceof Fault ? cause : new Fault('unavailable', told, { cause }))
    })
    asked.end(content)
  })
}

interface Address {
  readonly address: string
  readonly family: number
}

/** What resolves a name for the connection: the addresses that were judged, and no others. */
function answering(addresses: readonly [Address, ...Address[]]): LookupFunction {
  return (_, options, done) => {
    const [first] = addresses
    if (options.all) done(null, [...addresses])
    else done(null, first.address, first.family)
  }
}

/** All addresses of a name, every one of which may be asked. */
export async function judgedAddresses(host: string, reach: Reach): Promise<[Address, ...Address[]]> {
  const addresses = isIP(host) === 0 ? await resolved(host) : [{ address: host, family: isIP(host) }]
  const refused = addresses.find(({ address }) => !reach.includes(address))
  if (refused !== undefined) {
    const named = refused.address === host ? `'${host}'` : `'${host}' (${refused.address})`
    throw new Fault(
      'denied',
      `${named} is an address of this machine or its links, or one its owner forbids, and is not asked`,
      {
        remedy: `The node's owner can allow it: HAKO_FETCH_NETWORKS=${refused.address}.`,
      },
    )
  }
  const [first, ...others] = addresses
  if (first === undefined) throw new Fault('unavailable', `the name '${host}' leads to no address`)
  return [first, ...others]
}

async function resolved(host: string): Promise<Address[]> {
  try {
    return await lookup(host, { all: true })
  } catch (cause) {
    throw new Fault('unavailable', `the name '${host}' leads to no address`, { cause })
  }
}

export interface WebPost {
  readonly reach: Reach
  readonly content: string
  readonly headers: Readonly<Record<string, string>>
  /** How long the server may take to answer. */
  readonly answerMs: number
  /** PEM texts of those whose certificates are believed; those Node believes when absent. */
  readonly authorities?: readonly string[] | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Hands a text to a server, and does not follow where it leads: what is in the head is for this one alone.
 * @returns the status of the answer, whatever it is. @throws as `askWeb`
 */
export async function postToWeb(text: string, { content, headers, ...request }: WebPost): Promise<number> {
  const length = { 'Content-Length': String(Buffer.byteLength(content)) }
  const answer = await askOnce(webUrl(text), {
    ...request,
    method: 'POST',
    content,
    headers: { ...headers, ...length },
  })
  answer.destroy()
  return answer.statusCode ?? 0
}

/** The whole of something small. @throws as `askWeb`, and Fault `too-large` */
export async function fetchSmall(
  text: string,
  mostBytes: number,
  request: Omit<WebRequest, 'method'>,
): Promise<Buffer> {
  const signal = AbortSignal.any([AbortSignal.timeout(smallMs), ...(request.signal ? [request.signal] : [])])
  const { body } = await askWeb(text, { ...request, method: 'GET', signal })
  const parts: Buffer[] = []
  let bytes = 0
  try {
    for await (const part of addAbortSignal(signal, body) as AsyncIterable<Buffer>) {
      bytes += part.length
      if (bytes > mostBytes)
        throw new Fault('too-large', `'${withoutSecrets(webUrl(text))}' has more than ${mostBytes} bytes`)
      parts.push(part)
    }
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    throw new Fault('unavailable', `'${withoutSecrets(webUrl(text))}' was cut off: ${messageOf(cause)}`, { cause })
  }
  return Buffer.concat(parts)
}
