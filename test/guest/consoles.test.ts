/** Consoles of a real guest and of the node, as clients open them: through the public port, by WebSocket. */
import assert from 'node:assert/strict'
import { createHash, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import { once } from 'node:events'
import { extname, join, normalize } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { setDefaultCACertificates } from 'node:tls'
import { type Browser, type Page, startBrowser } from '../browser.ts'
import { form, logIn, proofOf, publicPort, type Session } from '../contract/public-port.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

interface Opened {
  readonly port: number
  readonly ticket: string
  readonly user: string
  readonly upid: string
  readonly password?: string
  readonly cert?: string
}

const novnc = '/usr/share/novnc'

suite('consoles', { timeout: 300_000 }, () => {
  let node: TestNode
  let at: string
  let guest: string
  let base: string
  let viewer: Session
  before(async () => {
    node = await nodeUnderTest()
    at = `/nodes/${node.settings.node}`
    guest = `${at}/qemu/100`
    base = `${node.url}/api2/json`
    await node.boot(100)
    for (const name of ['viewer', 'stranger']) {
      await node.api('POST', '/access/users', { userid: `${name}@pve`, password: 'correct horse' })
    }
    await node.api('POST', '/access/roles', { roleid: 'Viewer', privs: 'VM.Console' })
    await node.api('PUT', '/access/acl', { path: '/vms', roles: 'Viewer', users: 'viewer@pve' })
    viewer = await logIn(base, 'viewer@pve', 'correct horse')
    setDefaultCACertificates([await readFile(join(node.settings.stateDir, 'keys/tls.pem'), 'utf8')])
  })
  after(() => node[Symbol.asyncDispose]())

  const open = async (path: string, params: Record<string, string> = {}, session = viewer): Promise<Opened> => {
    const reply = await publicPort(base, proofOf(session))(path, ...form({ ...params, node: node.settings.node }))
    assert.equal(reply.status, 200, `${reply.reason} ${reply.body}`)
    return reply.data as Opened
  }
  const place = (path: string, { port, ticket }: Pick<Opened, 'port' | 'ticket'>) =>
    `${base.replace('https', 'wss')}${path}/vncwebsocket?port=${port}&vncticket=${encodeURIComponent(ticket)}`

  suite('the screen, by noVNC', () => {
    let browser: Browser
    let page: Page
    let pages: Server
    before(async () => {
      const { publicKey } = new X509Certificate(await readFile(join(node.settings.stateDir, 'keys/tls.pem')))
      const key = publicKey.export({ type: 'spki', format: 'der' })
      browser = await startBrowser(createHash('sha256').update(key).digest('base64'))
      pages = await servePages(join(node.settings.stateDir, 'keys'))
      page = await browser.page()
      await page.setCookie({ name: 'PVEAuthCookie', value: encodeURIComponent(viewer.ticket), url: node.url })
      const address = pages.address()
      assert.ok(typeof address === 'object' && address !== null)
      await page.open(`https://127.0.0.1:${address.port}/`)
    })
    after(async () => {
      await browser[Symbol.asyncDispose]()
      pages.close()
    })

    test('shows what is on the screen of the guest', async () => {
      const opened = await open(`${guest}/vncproxy`, { websocket: '1', 'generate-password': '1' })
      assert.match(opened.upid, /^UPID:testnode:.*:vncproxy:100:viewer@pve:$/)
      await page.run(`connect(${JSON.stringify(place(guest, opened))}, ${JSON.stringify(opened.password)})`)
      console.log(await page.run('canvasFacts()'), page.complaints)
    })
  })
})

/** One page with noVNC's client library in it, and the library's own files. */
async function servePages(keys: string): Promise<Server> {
  // By the node's own name and key, or the browser would not take the node's cookie along.
  const [key, cert] = await Promise.all(['tls.key', 'tls.pem'].map((name) => readFile(join(keys, name))))
  const types: Record<string, string> = { '.js': 'text/javascript', '.html': 'text/html' }
  const html = await readFile(join(import.meta.dirname, '../fixtures/novnc.html'))
  const server = createServer({ key, cert }, (request, response) => {
    const path = normalize(request.url ?? '/')
    const content = path === '/' ? Promise.resolve(html) : readFile(join(novnc, path))
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
