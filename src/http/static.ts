/**
 * Files for browsers: what is in one directory, and a start page where nothing is.
 *
 * A path is decoded first and then joined, and what leaves the directory (by `..` or by a link) does not
 * exist. Hidden files do not exist either.
 */
import { createReadStream } from 'node:fs'
import { open, realpath } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { extname, join, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Clock } from '#base/clock.ts'
import type { WireReply } from '#rest/reply.ts'
import { segmentsOf } from '#rest/router.ts'
import { send, standardHeaders } from './send.ts'

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html;charset=UTF-8',
  '.js': 'text/javascript;charset=UTF-8',
  '.css': 'text/css;charset=UTF-8',
  '.json': 'application/json;charset=UTF-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
  '.txt': 'text/plain;charset=UTF-8',
  '.map': 'application/json;charset=UTF-8',
}

/** Nothing a page of ours needs comes from elsewhere, and nobody may frame it. */
const safety = [
  'Content-Security-Policy',
  "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
  'X-Content-Type-Options',
  'nosniff',
  'Referrer-Policy',
  'no-referrer',
]

export interface StaticOptions {
  readonly directory?: string | undefined
  readonly node: string
  readonly clock: Clock
}

/** Answers a request that is not for the API. */
export async function serveStatic(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  options: StaticOptions,
): Promise<void> {
  const { clock } = options
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return send(request, response, plain(501, `Method '${request.method} ${path}' not implemented`), { clock })
  }
  const file = options.directory === undefined ? undefined : await fileAt(options.directory, path)
  if (file !== undefined) return sendFile(request, response, file, clock)
  if (path === '/' || path === '/index.html') {
    return send(request, response, startPage(options.node), { clock })
  }
  return send(request, response, plain(404, 'no such file'), { clock })
}

/** The real path of a file inside the directory, or nothing. */
export async function fileAt(directory: string, path: string): Promise<string | undefined> {
  let segments: string[]
  try {
    segments = segmentsOf(path)
  } catch {
    return undefined // Not a path anybody could have made a link to.
  }
  if (segments.some((segment) => segment.startsWith('.'))) return undefined
  const wanted = join(directory, ...(segments.length === 0 ? ['index.html'] : segments))
  try {
    const [root, real] = await Promise.all([realpath(directory), realpath(wanted)])
    return real.startsWith(root + sep) ? real : undefined
  } catch {
    return undefined
  }
}

async function sendFile(request: IncomingMessage, response: ServerResponse, path: string, clock: Clock): Promise<void> {
  const file = await open(path, 'r')
  try {
    const facts = await file.stat()
    if (!facts.isFile()) return await send(request, response, plain(404, 'no such file'), { clock })
    const type = types[extname(path)] ?? 'application/octet-stream'
    response.writeHead(200, [
      ...standardHeaders(clock),
      'Content-Type',
      type,
      'Content-Length',
      String(facts.size),
      ...safety,
    ])
    if (request.method === 'HEAD') response.end()
    else await pipeline(createReadStream(path), response)
  } finally {
    await file.close()
  }
}

function plain(status: number, reason: string): WireReply {
  return { status, reason, contentType: 'text/plain;charset=UTF-8', body: `${reason}\n` }
}

/** What a person sees who opens the address in a browser. */
function startPage(node: string): WireReply {
  const body = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Hakobune · ${escaped(node)}</title>
<style>body{font:16px/1.6 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}code{background:#eee;padding:.1em .3em}</style>
<h1>Hakobune</h1>
<p>A virtualization platform that proves what it backs up can be recovered. This is node <b>${escaped(node)}</b>.</p>
<p>It speaks the Proxmox VE API: <a href="/api2/json/version"><code>/api2/json/version</code></a> answers with a login.
Described in <a href="/openapi.json">OpenAPI 3.1</a> and in <a href="/apidoc.json">PVE's own form</a>.</p>
<p>On the machine itself, <code>hako --help</code> lists every command.</p>
</html>
`
  const headers: Record<string, string> = {}
  for (let at = 0; at < safety.length; at += 2) headers[safety[at] ?? ''] = safety[at + 1] ?? ''
  return { status: 200, reason: 'OK', contentType: types['.html'] ?? '', body, headers }
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
