/** Two sockets that are tied together: what one has said arrives, however slowly the other takes it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { endTogether } from './way-out.ts'

async function relayTo(target: number) {
  const server = createServer((client) => {
    const far = connect(target, '127.0.0.1')
    endTogether(client, far)
    client.pipe(far).pipe(client)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

const portOf = (server: ReturnType<typeof createServer>) => (server.address() as { port: number }).port

test('a server that says much and hangs up is heard to the end by a slow reader', async () => {
  const said = 24 << 20
  const server = createServer((socket) => socket.end(Buffer.alloc(said, 7))).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const relay = await relayTo(portOf(server))
  const reader = connect(portOf(relay), '127.0.0.1')
  let heard = 0
  reader.on('data', (part: Buffer) => {
    heard += part.length
    reader.pause()
    setImmediate(() => reader.resume())
  })
  reader.pause()
  await systemClock.sleep(200) // The server has long hung up.
  reader.resume()
  await once(reader, 'close')
  assert.equal(heard, said)
  relay.close()
  server.close()
})

test('one that breaks off takes the other with it', async () => {
  const met: Socket[] = []
  const server = createServer((socket) => void met.push(socket.on('error', () => {}))).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const relay = await relayTo(portOf(server))
  const reader = connect(portOf(relay), '127.0.0.1')
  await once(reader, 'connect')
  while (met.length === 0) await systemClock.sleep(5)
  const gone = once(reader, 'close')
  met[0]?.resetAndDestroy()
  reader.on('error', () => {})
  await gone
  relay.close()
  server.close()
})
