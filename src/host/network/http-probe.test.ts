import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '../exec.ts'
import { httpGet, tcpConnect } from './http-probe.ts'
import { createNetns, removeNetns } from './netns.ts'

const host = machine()

async function serving(listener: RequestListener) {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  assert.ok(typeof bound === 'object' && bound)
  return {
    port: bound.port,
    url: `http://127.0.0.1:${bound.port}/page`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
    },
  }
}

test('any status is an answer, and the body is kept up to its bound', async () => {
  await using web = await serving((request, reply) => {
    reply.statusCode = request.url === '/page' ? 404 : 500
    reply.end('ä'.repeat(100_000))
  })
  const { status, body, ms } = await httpGet({ host, url: web.url, bodyBytes: 10 })
  assert.deepEqual({ status, body }, { status: 404, body: 'äääää' })
  assert.ok(ms > 0 && ms < 60_000)
})

test('a redirection is not followed', async () => {
  await using web = await serving((_, reply) => reply.writeHead(302, { location: 'http://192.0.2.1/' }).end())
  assert.equal((await httpGet({ host, url: web.url })).status, 302)
})

test('an endless body ends at its bound, an endless silence at its limit', async () => {
  await using flood = await serving((_, reply) => {
    const timer = setInterval(() => reply.write('x'.repeat(50_000)), 1)
    reply.on('close', () => clearInterval(timer))
  })
  assert.equal((await httpGet({ host, url: flood.url, bodyBytes: 200_000 })).body.length, 200_000)
  await using silent = await serving(() => {})
  await assert.rejects(
    httpGet({ host, url: silent.url, timeoutMs: 100 }),
    (error) => isFault(error, 'unavailable') && /nothing within 0.1 s/.test(error.message),
  )
})

test('who does not speak HTTP, or refuses, does not answer', async () => {
  const server = createTcpServer((socket) => {
    socket.on('error', () => {}) // The probe hangs up on it.
    socket.resume().end('SSH-2.0-nonsense\r\n')
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  const port = typeof bound === 'object' && bound ? bound.port : 0
  await assert.rejects(httpGet({ host, url: `http://127.0.0.1:${port}/` }), (error) => isFault(error, 'unavailable'))
  await tcpConnect({ host, address: '127.0.0.1', port })
  server.close()
  await once(server, 'close')
  await assert.rejects(
    tcpConnect({ host, address: '127.0.0.1', port }),
    (error) => isFault(error, 'unavailable') && /ECONNREFUSED/.test(error.message),
  )
})

test('what is no http address is refused', async () => {
  for (const url of ['file:///etc/passwd', 'https://127.0.0.1/', 'http://', 'x']) {
    await assert.rejects(httpGet({ host, url }), (error) => isFault(error, 'invalid'), url)
  }
})

test('inside a namespace the machine is not there', async () => {
  await using web = await serving((_, reply) => reply.end('here'))
  const netns = `hx-probe-${process.pid}`
  try {
    await createNetns(host, netns)
    assert.equal((await httpGet({ host, url: web.url })).body, 'here')
    await assert.rejects(httpGet({ host, netns, url: web.url }), (error) => isFault(error, 'unavailable'))
  } finally {
    await removeNetns(host, netns)
  }
})
