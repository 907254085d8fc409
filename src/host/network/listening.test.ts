import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { listeningPorts } from './listening.ts'

test('a port somebody listens on is told, and not any more when nobody does', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  assert.ok((await listeningPorts(process.pid)).includes(address.port))
  server.close()
  await once(server, 'close')
  assert.ok(!(await listeningPorts(process.pid)).includes(address.port))
})
