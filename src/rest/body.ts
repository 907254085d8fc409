/**
 * Turns queries and request bodies into raw parameters. Nothing is checked here beyond "is it readable":
 * types and bounds are the schema's business.
 *
 * Lenient where clients in the field need it: a missing content type is a form, `;` separates like `&`, a
 * `%` that starts no escape stands for itself (one Perl client does not escape at all). Strict where
 * leniency would store something else than was sent: text that is not UTF-8 is refused, not replaced.
 */
import { Fault, invalid } from '#base/fault.ts'
import { humanSize } from '#base/bytes.ts'
import type { RawParams } from './router.ts'

export type BodyType = 'form' | 'json' | 'multipart'

/**
 * @param contentType the header, if any
 * @throws Fault `unsupported-media`
 */
export function bodyTypeOf(contentType: string | undefined): BodyType {
  const type = (contentType ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
  if (type === '' || type === 'application/x-www-form-urlencoded') return 'form'
  if (type === 'application/json') return 'json'
  if (type === 'multipart/form-data') return 'multipart'
  throw new Fault('unsupported-media', `Unsupported content type '${type.slice(0, 100)}'`, {
    remedy: 'Send application/x-www-form-urlencoded or application/json.',
  })
}

/** More names than any endpoint has parameters, families and all; each wrong one is answered by name. */
const namesAtMost = 2_000

/** Reads a query or a form. A key that repeats makes a list; `_dc` only defeats caches and is dropped. */
export function parseForm(text: string): RawParams {
  if (text === '') return {}
  // Gathered in a map: copying a list for each of its values would take a minute for half a megabyte.
  const gathered = new Map<string, string[]>()
  for (const part of text.split(/[&;]/)) {
    if (part === '') continue
    const equals = part.indexOf('=')
    const name = unescapeText(equals < 0 ? part : part.slice(0, equals), 'name of a parameter')
    if (name === '_dc') continue
    const value = equals < 0 ? '' : unescapeText(part.slice(equals + 1), name)
    const values = gathered.get(name)
    if (values) values.push(value)
    else gathered.set(name, [value])
  }
  requireFewNames(gathered.size)
  // `__proto__` becomes a parameter like any other, which is then refused as unknown.
  return Object.fromEntries([...gathered].map(([name, values]) => [name, values.length === 1 ? values[0] : values]))
}

function requireFewNames(count: number): void {
  if (count > namesAtMost) throw new Fault('invalid', `too many parameters: ${count}, at most ${namesAtMost} are taken`)
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function unescapeText(text: string, name: string): string {
  const spaced = text.includes('+') ? text.replaceAll('+', ' ') : text
  if (!spaced.includes('%')) return spaced
  // Runs of escapes are decoded together, because one character may be spread over several.
  return spaced.replace(/(?:%[0-9a-fA-F]{2})+/g, (run) => {
    try {
      return strictUtf8.decode(Buffer.from(run.replaceAll('%', ''), 'hex'))
    } catch (cause) {
      throw invalid({ [name]: 'invalid format - not UTF-8 text' }, { cause })
    }
  })
}

/** @throws Fault `invalid` unless the text is a JSON object. */
export function parseJson(text: string): RawParams {
  if (text.trim() === '') return {}
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new Fault('invalid', `the request body is not JSON: ${(cause as Error).message}`, { cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Fault('invalid', 'the request body must be a JSON object')
  }
  requireFewNames(Object.keys(value).length)
  return value as RawParams
}

/** Reads a body of the given type. @throws Fault `invalid` */
export function parseBody(bytes: Uint8Array, type: Exclude<BodyType, 'multipart'>): RawParams {
  let text: string
  try {
    text = strictUtf8.decode(bytes)
  } catch (cause) {
    throw new Fault('invalid', 'the request body is not UTF-8 text', { cause })
  }
  return type === 'json' ? parseJson(text) : parseForm(text.trimEnd())
}

/**
 * Collects a stream that must not be longer than `maximumBytes`.
 * @throws Fault `too-large` as soon as it is
 */
export async function collect(stream: AsyncIterable<Uint8Array>, maximumBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of stream) {
    size += part.length
    if (size > maximumBytes) throw tooLarge(maximumBytes)
    parts.push(part)
  }
  return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts)
}

export function tooLarge(maximumBytes: number): Fault {
  return new Fault('too-large', `the request body is larger than ${humanSize(maximumBytes)}`)
}
