/** Where in the API a request goes, before anybody asks who sent it. */
import { notImplemented } from '#rest/dispatch.ts'
import { faultReply, type ReplyFormat, type WireReply } from '#rest/reply.ts'
import type { Document } from './edge.ts'
import { splitTarget } from './wire.ts'

export interface ApiPlace {
  readonly format: ReplyFormat
  /** Below `/api2/<format>`, still percent-encoded. */
  readonly path: string
  readonly query: string
}

const methods: readonly string[] = ['GET', 'POST', 'PUT', 'DELETE']
const root = '/api2/'
const formats: readonly ReplyFormat[] = ['json', 'extjs', 'spiceconfig']

/** A place, or the reply where no login is needed to say it: a document, or that there is nothing. */
export function placeOf(
  method: string,
  target: string,
  documents: Readonly<Record<string, Document>> = {},
): ApiPlace | WireReply {
  const { path, query } = splitTarget(target)
  const document = method === 'GET' && Object.hasOwn(documents, path) ? documents[path] : undefined
  if (document) return { status: 200, reason: 'OK', contentType: document.contentType, body: document.body() }
  const nothing = (where: string) => faultReply('json', notImplemented(method, where))
  // `/api2/json/nodes` → `json`, `/nodes`
  const format = formats.find((name) => path === root + name || path.startsWith(`${root}${name}/`))
  if (format === undefined) return nothing(path)
  const below = path.slice(root.length + format.length) || '/'
  return methods.includes(method) ? { format, path: below, query } : nothing(below)
}
