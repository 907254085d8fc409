import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { reachOf } from './reach.ts'
import { metadataOf, urlMetadata } from './url-metadata.ts'
import { magicPacket, wake } from '../network/wake-on-lan.ts'

/** Its server is at an address that is asked only when the owner says so. */
const query = { reach: reachOf(['127.0.0.0/8']) }
const strict = { reach: reachOf() }

async function server() {
  const asked: string[] = []
  const http = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`)
    if (request.url === '/moved') response.writeHead(302, { Location: '/debian.iso?x=1' }).end()
    else if (request.url === '/loop') response.writeHead(302, { Location: '/loop' }).end()
    else if (request.url === '/gone') response.writeHead(404).end()
    else if (request.url === '/file') response.writeHead(302, { Location: 'file:///etc/passwd' }).end()
    else response.writeHead(200, { 'Content-Length': '1234', 'Content-Type': 'application/x-iso9660-image; q=1' }).end()
  }).listen(0, '127.0.0.1')
  await once(http, 'listening')
  const { port } = http.address() as AddressInfo
  return { asked, url: (path: string) => `http://127.0.0.1:${port}${path}`, [Symbol.dispose]: () => void http.close() }
}

test('a server tells name, size and kind without being asked for the file', async () => {
  using web = await server()
  const facts = { filename: 'debian.iso', sizeBytes: 1234, mimetype: 'application/x-iso9660-image' }
  assert.deepEqual(await urlMetadata(web.url('/images/debian.iso'), query), facts)
  assert.deepEqual(await urlMetadata(web.url('/moved'), query), facts)
  assert.ok(web.asked.every((line) => line.startsWith('HEAD ')))
  await assert.rejects(urlMetadata(web.url('/gone'), query), /the server answers 404/)
  await assert.rejects(urlMetadata(web.url('/loop'), query), /more than 5 times/)
  await assert.rejects(urlMetadata(web.url('/file'), query), /leads to 'file:'/)
})

test('addresses of this machine and its links are not asked, in whatever spelling', async () => {
  using web = await server()
  await assert.rejects(urlMetadata(web.url('/x'), strict), /is not asked/)
  const port = new URL(web.url('/')).port
  for (const host of ['localhost', '127.1', '0x7f.1', '[::ffff:127.0.0.1]', '0.0.0.0']) {
    await assert.rejects(urlMetadata(`http://${host}:${port}/x`, strict), /is not asked|leads to no address/, host)
  }
  assert.deepEqual(web.asked, [])
})

test('the name a server gives wins over that of the path, and is never a path itself', () => {
  const url = new URL('https://a.example/get?id=1')
  assert.equal(metadataOf(url, { 'content-disposition': 'attachment; filename="../../x.iso"' }).filename, 'x.iso')
  assert.deepEqual(metadataOf(new URL('https://a.example/'), {}), {})
})

test('a machine that sleeps is called by its address, sixteen times', async () => {
  const listener = createSocket('udp4').bind(0, '127.0.0.1')
  await once(listener, 'listening')
  const heard = once(listener, 'message')
  await wake('BC:24:11:00:00:01', { broadcast: '127.0.0.1', port: listener.address().port })
  const [packet] = (await heard) as [Buffer]
  listener.close()
  assert.deepEqual(packet, magicPacket('BC:24:11:00:00:01'))
  assert.equal(packet.toString('hex'), 'ffffffffffff' + 'bc2411000001'.repeat(16))
})
