/** A page with noVNC's own client library in it, served from Debian's package. */
import { readFile } from 'node:fs/promises'
import { once } from 'node:events'
import { createServer, type Server } from 'node:https'
import { extname, join, normalize } from 'node:path'

/** @param keys directory of the node's key and certificate */
export async function servePages(keys: string): Promise<Server> {
  // By the node's own name and key, or the browser would not take the node's cookie along.
  const [key, cert] = await Promise.all(['tls.key', 'tls.pem'].map((name) => readFile(join(keys, name))))
  const types: Record<string, string> = { '.js': 'text/javascript', '.html': 'text/html' }
  const html = await readFile(join(import.meta.dirname, '../fixtures/novnc.html'))
  const server = createServer({ key, cert }, (request, response) => {
    const path = normalize(request.url ?? '/')
    const content = path === '/' ? Promise.resolve(html) : readFile(join('/usr/share/novnc', path))
    content.then(
      (bytes) =>
        response.writeHead(200, { 'Content-Type': types[extname(path) || '.html'] ?? 'text/plain' }).end(bytes),
      () => response.writeHead(404).end(),
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}
