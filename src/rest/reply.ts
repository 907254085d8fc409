/**
 * Replies on the wire: the only place where a fault's kind becomes a status.
 *
 * The reason phrase carries the first line of the error, because most clients read nothing else; the body
 * always has the key `data`, because one indexes it before it looks at the status. `kind` and `remedy`
 * stand beside it for our own CLI and web interface. There is no 404 on purpose: no client of this API
 * relies on it, and many match on "500" together with the text.
 */
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import type { Fault, FaultKind } from '#base/fault.ts'
import type { Streamed } from './endpoint.ts'
import { viewerFile } from './viewer-file.ts'

/** `json` is the API proper; `extjs` always says 200 and tells success inside; `spiceconfig` is the file a viewer opens. */
export type ReplyFormat = 'json' | 'extjs' | 'spiceconfig'

export interface WireReply {
  readonly status: number
  readonly reason: string
  readonly contentType: string
  readonly body: string
  readonly headers?: Readonly<Record<string, string>>
  /** What went wrong, when something did; the status alone does not tell in `extjs`. */
  readonly kind?: FaultKind
  /** Bytes in place of the body, with how many they are where that is known. */
  readonly stream?: { readonly bytes: Readable; readonly sizeBytes: number | undefined }
  /** Whoever carries it may give it again. */
  readonly keep?: Keep
}

/** For how long a reply may be given again to whoever brings the same proof, without asking. */
export interface Keep {
  /** While the store's mark reads so, ... */
  readonly mark: string
  /** ... and no longer than this (ms since 1970). */
  readonly until: number
  /** To be told how often it was. */
  readonly given: (times: number, remoteAddress: string) => void
}

/** The npm client compares this whole text, so there is no space after the semicolon. */
const jsonType = 'application/json;charset=UTF-8'

const viewerType = 'application/x-virt-viewer;charset=UTF-8'

const statusByKind: Readonly<Record<FaultKind, number>> = {
  invalid: 400,
  unauthenticated: 401,
  denied: 403,
  missing: 500,
  conflict: 500,
  unavailable: 500,
  exhausted: 500,
  timeout: 500,
  aborted: 500,
  damaged: 500,
  unproven: 500,
  unimplemented: 501,
  'too-large': 413,
  'unsupported-media': 506,
  failed: 500,
}

export function statusOf(kind: FaultKind): number {
  return statusByKind[kind]
}

export function isFaultKind(text: unknown): text is FaultKind {
  return typeof text === 'string' && Object.hasOwn(statusByKind, text)
}

/** The kind to assume for a status, when the other side does not say it. */
export function kindOfStatus(status: number): FaultKind {
  if (status === 408) return 'timeout'
  if (status >= 595) return 'unavailable'
  const kinds: readonly FaultKind[] = [
    'invalid',
    'unauthenticated',
    'denied',
    'unimplemented',
    'too-large',
    'unsupported-media',
  ]
  return kinds.find((kind) => statusByKind[kind] === status) ?? 'failed'
}

/** @param data as JSON, by `encode.ts` @throws Fault `unimplemented` when it has no such format */
export function dataReply(
  format: ReplyFormat,
  data: string,
  beside: { readonly total?: number; readonly changes?: string } = {},
): WireReply {
  if (format === 'spiceconfig') return { ...ok, contentType: viewerType, body: viewerFile(JSON.parse(data)) }
  const others = JSON.stringify({ ...(format === 'extjs' ? { success: 1 } : {}), ...beside })
  const body = `{"data":${data}${others === '{}' ? '' : `,${others.slice(1, -1)}`}}`
  return { ...ok, contentType: jsonType, body }
}

const ok = { status: 200, reason: 'OK' } as const

/** A file as it is. */
export function downloadReply(fileName: string, text: string): WireReply {
  return {
    status: 200,
    reason: 'OK',
    contentType: 'text/plain;charset=UTF-8',
    body: text,
    headers: attachedAs(fileName),
  }
}

/** A file of any length, once its first bytes are there: what fails before is a fault like any other. @throws what the bytes fail with */
export async function streamedReply({ fileName, bytes, sizeBytes }: Streamed, signal: AbortSignal): Promise<WireReply> {
  // One that comes before anybody carries the bytes is heard of then.
  bytes.on('error', () => {})
  try {
    // Also at the end of what is empty.
    await once(bytes, 'readable', { signal })
  } catch (cause) {
    bytes.destroy()
    throw cause
  }
  const headers = attachedAs(fileName)
  return { ...ok, contentType: 'application/octet-stream', body: '', headers, stream: { bytes, sizeBytes } }
}

function attachedAs(fileName: string) {
  return { 'Content-Disposition': `attachment; filename="${fileName.replace(/[^\w.@:!-]/g, '_')}"` }
}

/**
 * @param format a fault that struck before the call was understood (no login, no readable request) is told by
 *   status in every format; pass `json` for it
 */
export function faultReply(format: ReplyFormat, fault: Fault): WireReply {
  const status = statusOf(fault.kind)
  const facts = {
    data: null,
    ...(fault.fields ? { errors: fault.fields } : {}),
    message: `${fault.message}\n`,
    kind: fault.kind,
    ...(fault.remedy === undefined ? {} : { remedy: fault.remedy }),
  }
  if (format === 'extjs') {
    const body = JSON.stringify({ ...facts, errors: fault.fields ?? {}, success: 0, status })
    return { status: 200, reason: 'OK', contentType: jsonType, body, kind: fault.kind }
  }
  const reason = reasonPhrase(fault.message)
  return { status, reason, contentType: jsonType, body: JSON.stringify(facts), kind: fault.kind }
}

/** The first line, in the characters a status line may hold; the rest become `?`. */
export function reasonPhrase(text: string): string {
  const line = text.trimStart().split(/[\r\n]/, 1)[0] ?? ''
  const legal = line.replace(/[^\t\x20-\x7e\x80-\xff]/gu, '?').trim()
  return legal.slice(0, 512) || 'Error'
}
