/**
 * Asks a web server what is behind an address, without fetching it.
 *
 * The server is asked on behalf of somebody else, so it must be one he could reach himself: loopback, link-local and other
 * addresses of this machine alone are refused. The name is resolved here, and the connection goes to the very
 * address that was judged; a redirect is judged anew. Rejected: to judge the name and let the client resolve it again.
 */
import { lookup } from 'node:dns/promises'
import { request as requestHttps } from 'node:https'
import { BlockList, isIP } from 'node:net'
import { basename } from 'node:path'
import { Fault, messageOf } from '#base/fault.ts'

// By name: an ordinary import reads every export, and reading one of them loads undici, in each worker and daemon.
const { request: requestHttp } = process.getBuiltinModule('node:http')

export interface UrlMetadata {
  readonly filename?: string
  readonly mimetype?: string
  readonly sizeBytes?: number
}

export interface UrlQuery {
  readonly verifyCertificates?: boolean
  /** For tests: addresses that would be refused are asked too. */
  readonly allowsOwn?: boolean
  readonly signal?: AbortSignal | undefined
}

const mostRedirects = 5
const timeoutMs = 10_000

const refused = new BlockList()
for (const [net, bits] of [
  ['0.0.0.0', 8],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const) {
  refused.addSubnet(net, bits, 'ipv4')
}
for (const [net, bits] of [
  ['::', 127],
  ['fe80::', 10],
  ['ff00::', 8],
] as const) {
  refused.addSubnet(net, bits, 'ipv6')
}

/** Whether only this machine, or nobody, is behind the address. */
export function isOwnAddress(address: string): boolean {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined) return refused.check(mapped, 'ipv4')
  // Translated and tunnelled addresses carry another one inside.
  if (/^(?:64:ff9b:|2002:|::ffff:)/i.test(address)) return true
  return refused.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}

/** @throws Fault `denied` for an address of this machine; `unavailable` when nobody answers; `failed` for another answer than 200 */
export async function urlMetadata(text: string, query: UrlQuery = {}): Promise<UrlMetadata> {
  let url = new URL(text)
  for (let number = 0; number <= mostRedirects; number += 1) {
    const { status, headers } = await head(url, query)
    const location = headers.location
    if (status >= 300 && status < 400 && location !== undefined) {
      url = new URL(location, url)
      if (!['http:', 'https:'].includes(url.protocol)) throw new Fault('failed', `'${text}' leads to '${url.protocol}'`)
      continue
    }
    if (status !== 200) throw new Fault('failed', `could not get metadata of '${text}': the server answers ${status}`)
    return metadataOf(url, headers)
  }
  throw new Fault('failed', `'${text}' leads from one address to the next more than ${mostRedirects} times`)
}

type Headers = Readonly<Record<string, string | undefined>>

export function metadataOf(url: URL, headers: Headers): UrlMetadata {
  const named = /filename="?([^";]+)"?/i.exec(headers['content-disposition'] ?? '')?.[1]
  const filename = basename(named ?? decodeURIComponent(url.pathname))
  const size = Number(headers['content-length'] ?? NaN)
  const mimetype = headers['content-type']?.split(';')[0]?.trim()
  return {
    ...(filename === '' ? {} : { filename }),
    ...(Number.isSafeInteger(size) ? { sizeBytes: size } : {}),
    ...(mimetype === undefined || mimetype === '' ? {} : { mimetype }),
  }
}

async function head(url: URL, query: UrlQuery): Promise<{ status: number; headers: Headers }> {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const { address, family } = await resolved(host)
  if (query.allowsOwn !== true && isOwnAddress(address)) {
    throw new Fault('denied', `'${host}' is an address of this machine or of its link alone, and is not asked`)
  }
  const signal = AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(query.signal ? [query.signal] : [])])
  const options = {
    method: 'HEAD',
    signal,
    headers: { 'User-Agent': 'Hakobune' },
    rejectUnauthorized: query.verifyCertificates ?? true,
    lookup: (_: string, __: object, done: (error: null, found: { address: string; family: number }[]) => void) =>
      done(null, [{ address, family }]),
  }
  return new Promise((resolve, reject) => {
    const request = (url.protocol === 'https:' ? requestHttps : requestHttp)(url, options as never, (response) => {
      response.resume()
      const headers = Object.entries(response.headers).map(([name, value]) => [name, String(value)] as const)
      resolve({ status: response.statusCode ?? 0, headers: Object.fromEntries(headers) })
    })
    request.once('error', (cause) =>
      reject(new Fault('unavailable', `could not reach '${url.origin}': ${messageOf(cause)}`, { cause })),
    )
    request.end()
  })
}

async function resolved(host: string): Promise<{ address: string; family: number }> {
  if (isIP(host) !== 0) return { address: host, family: isIP(host) }
  try {
    return await lookup(host)
  } catch (cause) {
    throw new Fault('unavailable', `the name '${host}' leads to no address`, { cause })
  }
}
