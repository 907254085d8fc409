/** Asks a web server what is behind an address, without fetching it. */
import { basename } from 'node:path'
import type { Reach } from './reach.ts'
import { askWeb, type Headers } from './web.ts'

export interface UrlMetadata {
  readonly filename?: string
  readonly mimetype?: string
  readonly sizeBytes?: number
}

export interface UrlQuery {
  readonly reach: Reach
  readonly verifyCertificates?: boolean | undefined
  readonly signal?: AbortSignal | undefined
}

const answerMs = 10_000

/** @throws as `askWeb` */
export async function urlMetadata(text: string, query: UrlQuery): Promise<UrlMetadata> {
  const { url, headers, body } = await askWeb(text, { ...query, method: 'HEAD', answerMs, mayLoseTls: true })
  body.destroy()
  return metadataOf(url, headers)
}

export function metadataOf(url: URL, headers: Headers): UrlMetadata {
  const named = /filename="?([^";]+)"?/i.exec(headers['content-disposition'] ?? '')?.[1]
  const filename = basename(named ?? decoded(url.pathname))
  const size = Number(headers['content-length'] ?? NaN)
  const mimetype = headers['content-type']?.split(';')[0]?.trim()
  return {
    ...(filename === '' ? {} : { filename }),
    ...(Number.isSafeInteger(size) ? { sizeBytes: size } : {}),
    ...(mimetype === undefined || mimetype === '' ? {} : { mimetype }),
  }
}

/** A lone percent sign is one. */
function decoded(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    return path
  }
}
