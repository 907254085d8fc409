/** The public port as clients meet it: real TLS, real sockets, curl and Node as clients. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'
import { connect as connectPlain } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { curl } from '../../test/contract/curl.ts'
import { csrfOf, type Demo, demoNode, ticketOf } from '../../test/contract/demo.ts'
import { closeServer } from './unix-socket.ts'

const asRoot = ['-b', `PVEAuthCookie=${ticketOf('root@pam')}`, '-H', `CSRFPreventionToken: ${csrfOf('root@pam')}`]
const asToken = ['-H', 'Authorization: PVEAPIToken=root@pam!ci=letmein']

function tlsTo(node: Demo): TLSSocket {
  const socket = connectTls({ host: '127.0.0.1', port: node.port, ca: node.certificate })
  socket.on('error', () => {}) // A reset is an end like any other.
  return socket
}

/** Everything a socket says until it ends. */
async function untilClosed(socket: TLSSocket | ReturnType<typeof connectPlain>): Promise<string> {
  let text = ''
  socket.on('data', (part: Buffer) => (text += part.toString('latin1')))
  socket.on('error', () => {})
  await new Promise((resolve) => socket.once('close', resolve))
  return text
}

describe('replies', () => {
  test('a small authenticated GET', async () => {
    await using node = await demoNode()
    const got = await curl([...asToken, `${node.url}/api2/json/version`])
    assert.deepEqual([got.status, got.reason], [200, 'OK'])
    assert.equal(got.headers['content-type'], 'application/json;charset=UTF-8')
    assert.equal(got.headers.server, 'pve-api-daemon/3.0')
    assert.equal(got.headers['cache-control'], 'max-age=0')
    assert.equal(got.headers.pragma, 'no-cache')
    assert.equal(got.headers.expires, got.headers.date)
    assert.deepEqual(JSON.parse(got.body), { data: { version: '9.2.3', release: '9.2', repoid: 'feedc0de' } })
  })

  test('a body arrives byte for byte, whether it travels with its headers or after them', async () => {
    await using node = await demoNode()
    for (const text of ['schön 東京 🚢', 'é'.repeat(1000), '東'.repeat(1000)]) {
      const path = `/api2/json/echo/a?text=${encodeURIComponent(text)}`
      const got = await curl([...asToken, '-X', 'PUT', `${node.url}${path}`])
      // curl's words are read as Latin-1.
      const bytes = Buffer.from(got.body, 'latin1')
      assert.equal(Number(got.headers['content-length']), bytes.length)
      assert.equal((JSON.parse(bytes.toString('utf8')) as { data: { text: string } }).data.text, text)
    }
  })

  test('the reason phrase carries the error, in what characters it can', async () => {
    await using node = await demoNode()
    const got = await curl([...asRoot, `${node.url}/api2/json/broken?how=multiline`])
    assert.deepEqual([got.status, got.reason], [500, 'erste Zeile ? ?schön?'])
    assert.equal(got.headers['x-injected'], undefined)
    const gone = await curl([...asRoot, `${node.url}/api2/json/nodes/demo/qemu/404/status/current`])
    assert.equal(gone.reason, "Configuration file 'nodes/demo/qemu-server/404.conf' does not exist")
  })

  test('connections are kept after success and closed after an error', async () => {
    await using node = await demoNode()
    const agent = new Agent({ keepAlive: true, ca: node.certificate, maxSockets: 1 })
    const ports: (number | undefined)[] = []
    const ask = async (path: string) => {
      const call = request({
        host: '127.0.0.1',
        port: node.port,
        agent,
        path,
        headers: { Authorization: 'PVEAPIToken=root@pam!ci=letmein' },
      })
      call.end()
      const [reply] = (await once(call, 'response')) as [IncomingMessage]
      ports.push(call.socket?.localPort)
      reply.resume()
      await once(reply, 'end')
      return reply.headers.connection
    }
    assert.equal(await ask('/api2/json/version'), 'keep-alive')
    assert.equal(await ask('/api2/json/version'), 'keep-alive')
    assert.equal(await ask('/api2/json/nothing'), 'close')
    assert.equal(await ask('/api2/json/version'), 'keep-alive')
    agent.destroy()
    assert.equal(ports[0], ports[1])
    assert.equal(ports[1], ports[2])
    assert.notEqual(ports[2], ports[3])
  })

  test('a large reply is compressed for who accepts it, a small one for nobody', async () => {
    await using node = await demoNode()
    const large = `${node.url}/api2/json/large?size=1000000`
    const plain = await curl([...asToken, large])
    assert.deepEqual([plain.headers['content-encoding'], plain.body.length], [undefined, 1_000_011])
    const zipped = await curl([...asToken, '--compressed', large])
    assert.equal(zipped.headers['content-encoding'], 'gzip')
    assert.equal(zipped.body, plain.body)
    assert.ok(Number(zipped.headers['content-length']) < 20_000)
    const small = await curl([...asToken, '--compressed', `${node.url}/api2/json/version`])
    assert.equal(small.headers['content-encoding'], undefined)
    const never = await curl([...asToken, '-H', 'Accept-Encoding: gzip;q=0', large])
    assert.equal(never.headers['content-encoding'], undefined)
  })

  test('extjs and downloads', async () => {
    await using node = await demoNode()
    const ext = await curl([...asToken, `${node.url}/api2/extjs/broken?how=bug`])
    assert.deepEqual([ext.status, (JSON.parse(ext.body) as { success: number }).success], [200, 0])
    const log = await curl([...asRoot, `${node.url}/api2/json/log`])
    assert.equal(log.headers['content-type'], 'text/plain;charset=UTF-8')
    assert.equal(log.headers['content-disposition'], 'attachment; filename="task__log_.txt"')
    assert.equal(log.body, 'line 1\nline 2\n')
  })

  test('the API describes itself without login, and the start page leads there', async () => {
    await using node = await demoNode()
    const page = await curl([`${node.url}/`])
    assert.match(page.body, /href="\/openapi\.json"/)
    for (const path of ['/openapi.json', '/apidoc.json']) {
      const got = await curl([node.url + path])
      assert.equal(got.status, 200)
      assert.match(got.body, /qemu/)
    }
  })
})

describe('login', () => {
  test('the texts clients match, and JSON with data in every case', async () => {
    await using node = await demoNode()
    const cases = [
      [[], 'No ticket'],
      [['-b', 'PVEAuthCookie=PVE:x:bad'], 'permission denied - invalid PVE ticket'],
      [['-X', 'POST', '-b', `PVEAuthCookie=${ticketOf('root@pam')}`], 'Permission denied - invalid csrf token'],
    ] as const
    for (const [args, reason] of cases) {
      const got = await curl([...args, `${node.url}/api2/json/version`])
      assert.deepEqual([got.status, got.reason], [401, reason])
      assert.equal((JSON.parse(got.body) as { data: null }).data, null)
    }
  })

  test('a failed login is answered late, counted from the start of the request', async () => {
    await using node = await demoNode({ failedLoginMs: 400 })
    const began = performance.now()
    assert.equal((await curl([`${node.url}/api2/json/version`])).status, 401)
    assert.ok(performance.now() - began >= 400)
  })

  test('nobody can pose as the front', async () => {
    await using node = await demoNode()
    const got = await curl([...asToken, '-H', 'X-Hakobune-Client: 192.0.2.66', `${node.url}/api2/json/whoami`])
    assert.equal((JSON.parse(got.body) as { data: { remote: string } }).data.remote, '127.0.0.1')
    const upload = `${node.url}/api2/json/nodes/demo/storage/local/upload`
    const forged = ['-H', 'x-hakobune-upload: some-file', '-d', 'content=iso&filename=a.iso&tmpfilename=/etc/shadow']
    assert.equal((await curl([...asRoot, ...forged, upload])).status, 506)
  })
})

describe('what is not served', () => {
  test('other methods, other formats, bodies where none belong', async () => {
    await using node = await demoNode()
    const version = `${node.url}/api2/json/version`
    assert.equal((await curl([...asToken, '--head', version])).status, 501)
    for (const method of ['PATCH', 'OPTIONS'])
      assert.equal((await curl([...asToken, '-X', method, version])).status, 501)
    for (const format of ['html', 'png', 'jsonx', '']) {
      assert.equal((await curl([...asToken, `${node.url}/api2/${format}/version`])).status, 501)
    }
    for (const method of ['GET', 'DELETE']) {
      const got = await curl([...asToken, '-X', method, '-d', 'a=1', version])
      assert.deepEqual([got.status, got.reason], [501, `Unexpected content for method '${method}'`])
    }
  })

  test('a body of a type nobody reads is 506', async () => {
    await using node = await demoNode()
    const echo = `${node.url}/api2/json/echo/a`
    for (const type of ['text/plain', 'application/xml', 'multipart/form-data; boundary=x']) {
      const got = await curl([...asRoot, '-X', 'PUT', '-H', `Content-Type: ${type}`, '-d', 'text=1', echo])
      assert.equal(got.status, 506, type)
    }
  })
})

describe('bodies', () => {
  test('form, JSON, no content type, chunked, and nothing at all', async () => {
    await using node = await demoNode()
    const echo = [...asRoot, '-X', 'PUT', `${node.url}/api2/json/echo/a`]
    const bodies = [
      ['-d', 'text=x+y&count=3&flag=1'],
      ['-H', 'Content-Type: application/json', '-d', '{"text":"x y","count":3,"flag":true}'],
      ['-H', 'Content-Type;', '-d', 'text=x y&count=3&flag=1'],
      ['-H', 'Transfer-Encoding: chunked', '-d', 'text=x%20y;count=3;flag=1'],
    ]
    for (const body of bodies) {
      const got = await curl([...echo, ...body])
      assert.deepEqual(JSON.parse(got.body), { data: { id: 'a', text: 'x y', count: 3, flag: 1 } }, body.join(' '))
    }
    assert.deepEqual(JSON.parse((await curl(echo)).body), { data: { id: 'a' } })
  })

  test('over the limit is 413, told before the client has sent it all', async () => {
    await using node = await demoNode()
    const args = [...asRoot, '-X', 'PUT', '--data-binary', '@-', '-H', 'Expect:']
    const big = Buffer.alloc(3 * 1024 * 1024, 'text=x&')
    for (const how of [[], ['-H', 'Transfer-Encoding: chunked']]) {
      const got = await curl([...args, ...how, `${node.url}/api2/json/echo/a`], big)
      assert.deepEqual([got.status, got.reason], [413, 'the request body is larger than 512 KiB'], got.errors)
    }
  })

  test('headers over the limit are 431', async () => {
    await using node = await demoNode()
    assert.equal((await curl(['-H', `X-Long: ${'x'.repeat(40_000)}`, `${node.url}/api2/json/version`])).status, 431)
  })
})

describe('slow clients', () => {
  test('headers that drip are cut off', async () => {
    await using node = await demoNode({ headersTimeoutMs: 1_000 })
    const socket = tlsTo(node)
    socket.write('GET /api2/json/version HTTP/1.1\r\nHost: x\r\nX-Slow: ')
    assert.match(await untilClosed(socket), /^HTTP\/1\.1 408 /)
  })

  test('a connection that never speaks is closed', async () => {
    await using node = await demoNode({ headersTimeoutMs: 1_000 })
    assert.equal(await untilClosed(connectPlain(node.port, '127.0.0.1')), '')
  })

  test('plain HTTP that drips is closed', async () => {
    await using node = await demoNode({ headersTimeoutMs: 1_000 })
    const socket = connectPlain(node.port, '127.0.0.1')
    socket.write('GET / HT')
    assert.equal(await untilClosed(socket), '')
  })

  test('a body that drips is cut off by the daemon', async () => {
    await using node = await demoNode({ changes: { requestTimeoutMs: 200 } })
    const socket = tlsTo(node)
    const cookie = `Cookie: PVEAuthCookie=${ticketOf('root@pam')}\r\nCSRFPreventionToken: ${csrfOf('root@pam')}`
    socket.write(`PUT /api2/json/echo/a HTTP/1.1\r\nHost: x\r\n${cookie}\r\nContent-Length: 100\r\n\r\ntext=`)
    assert.match(await untilClosed(socket), /^HTTP\/1\.1 408 /)
  })
})

describe('plain HTTP on the TLS port', () => {
  test('is sent to https, keeping method and path', async () => {
    await using node = await demoNode()
    const target = `127.0.0.1:${node.port}/api2/json/version?a=1`
    for (const [args, status] of [
      [[], 301],
      [['--head'], 301],
      [['-d', 'a=1'], 308],
      [['-X', 'DELETE'], 308],
    ] as const) {
      const got = await curl([...args, `http://${target}`])
      assert.deepEqual([got.status, got.headers.location], [status, `https://${target}`])
    }
  })

  test('what is neither TLS nor HTTP is closed', async () => {
    await using node = await demoNode()
    const socket = connectPlain(node.port, '127.0.0.1')
    socket.write('\x00\x01\x02 nonsense\r\n\r\n')
    assert.match(await untilClosed(socket), /^(HTTP\/1\.1 400|$)/)
  })
})

test('TLS 1.2 and 1.3, never HTTP/2', async () => {
  await using node = await demoNode()
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const socket = connectTls({
      host: '127.0.0.1',
      port: node.port,
      ca: node.certificate,
      minVersion: version,
      maxVersion: version,
      ALPNProtocols: ['h2', 'http/1.1'],
    })
    await once(socket, 'secureConnect')
    assert.deepEqual([socket.getProtocol(), socket.alpnProtocol], [version, 'http/1.1'])
    socket.destroy()
  }
})

test('without the daemon the front says so, and recovers with it', async () => {
  await using node = await demoNode()
  assert.equal((await curl([...asToken, `${node.url}/api2/json/version`])).status, 200)
  node.daemon.closeAllConnections()
  // The kept connection is dead; a read is tried again on a new one.
  assert.equal((await curl([...asToken, `${node.url}/api2/json/version`])).status, 200)
  await closeServer(node.daemon, 10)
  const got = await curl([...asToken, `${node.url}/api2/json/version`])
  assert.deepEqual([got.status, got.reason], [595, 'the daemon of this node does not answer'])
})

describe('files', () => {
  test('only what is inside the directory exists', async () => {
    await using node = await demoNode()
    const directory = join(node.directory, 'static')
    await mkdir(join(directory, 'sub'), { recursive: true })
    await writeFile(join(directory, 'app.js'), 'alert(1)')
    await writeFile(join(directory, '.hidden'), 'no')
    await writeFile(join(directory, 'sub', 'a b.css'), 'body{}')
    await writeFile(join(node.directory, 'outside'), 'no')
    await symlink(join(node.directory, 'outside'), join(directory, 'link'))
    await using web = await demoNode({ staticDir: directory })

    const script = await curl([`${web.url}/app.js`])
    assert.deepEqual([script.status, script.body], [200, 'alert(1)'])
    assert.equal(script.headers['content-type'], 'text/javascript;charset=UTF-8')
    assert.equal((await curl([`${web.url}/sub/a%20b.css`])).body, 'body{}')
    assert.equal((await curl(['--head', `${web.url}/app.js`])).headers['content-length'], '8')
    for (const path of [
      '/../outside',
      '/%2e%2e/outside',
      '/sub/..%2f..%2foutside',
      '/.hidden',
      '/link',
      '/sub',
      '/nothing',
      '/%00',
    ]) {
      assert.equal((await curl(['--path-as-is', web.url + path])).status, 404, path)
    }
    assert.equal((await curl(['-d', 'x', `${web.url}/app.js`])).status, 501)
  })
})

describe('upgrades', () => {
  const upgrade = (path: string, more = '') =>
    `GET ${path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n${more}\r\n`
  const cookie = `Cookie: PVEAuthCookie=${ticketOf('ann@pve')}\r\n`

  test('need a login, and somebody who claims the path', async () => {
    await using node = await demoNode()
    const stranger = tlsTo(node)
    stranger.write(upgrade('/api2/json/nodes/demo/vncwebsocket'))
    assert.match(await untilClosed(stranger), /^HTTP\/1\.1 401 No ticket\r\n/)
    const known = tlsTo(node)
    known.write(upgrade('/api2/json/nodes/demo/vncwebsocket', cookie))
    assert.match(
      await untilClosed(known),
      /^HTTP\/1\.1 501 Method 'GET \/api2\/json\/nodes\/demo\/vncwebsocket' not implemented\r\n/,
    )
  })

  test('once claimed, bytes flow both ways through the front', async () => {
    await using node = await demoNode({
      changes: {
        claimUpgrade: async ({ path, who, request: { headers } }) =>
          path === '/echo'
            ? (socket, head) => {
                socket.write(
                  `HTTP/1.1 101 Switching Protocols\r\n\r\n${who.authId} ${String(headers['x-hakobune-client'])} `,
                )
                socket.write(head)
                socket.pipe(socket)
              }
            : undefined,
      },
    })
    const socket = tlsTo(node)
    let text = ''
    socket.on('data', (part: Buffer) => (text += part.toString()))
    socket.write(`${upgrade('/echo', `${cookie}X-Hakobune-Client: 192.0.2.66\r\n`)}early `)
    while (!text.includes('early')) await once(socket, 'data')
    socket.write('later')
    while (!text.includes('later')) await once(socket, 'data')
    assert.equal(text, 'HTTP/1.1 101 Switching Protocols\r\n\r\nann@pve 127.0.0.1 early later')
    socket.destroy()
  })

  test('an offer of HTTP/2 is ignored', async () => {
    await using node = await demoNode()
    const got = await curl([
      ...asToken,
      '-H',
      'Upgrade: h2c',
      '-H',
      'Connection: Upgrade',
      `${node.url}/api2/json/version`,
    ])
    assert.equal(got.status, 200)
  })
})
