/** The port for SPICE as a viewer meets it: a proxy that leads to one guest and nowhere else. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { askProxy } from '../../test/guest/spice-door.ts'
import { curl } from '../../test/contract/curl.ts'
import { type Demo, demoNode } from '../../test/contract/demo.ts'
import { createSpicePort } from './spice-port.ts'
import { closeServer } from './unix-socket.ts'
import { spiceHeader, spiceProtocol } from './wire.ts'

const ticket = '6b49d200.100.ticket.spice'

interface World extends AsyncDisposable {
  readonly node: Demo
  readonly port: number
  /** What the daemon was given: it ends each when the viewer does. */
  readonly channels: Channel[]
}

interface Channel {
  readonly stream: Duplex
  readonly got: () => string
}

function asChannel(stream: Duplex): Channel {
  let got = ''
  stream.on('error', () => {})
  stream.on('data', (part: Buffer) => (got += part.toString()))
  stream.on('end', () => stream.end())
  return { stream, got: () => got }
}

async function world(): Promise<World> {
  await using undo = new AsyncDisposableStack()
  const channels: Channel[] = []
  const takeSpice = async (text: string, port: number) => {
    if (text === 'nobody.spice') throw new Fault('missing', `console ${port} does not exist`)
    if (text !== ticket || port !== 5901) throw new Fault('unauthenticated', 'permission denied - invalid SPICE ticket')
    return (channel: Duplex) => void channels.push(asChannel(channel))
  }
  const node = undo.use(await demoNode({ changes: { takeSpice } }))
  const server = createSpicePort({ daemonSocket: node.frontSocket })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  undo.defer(() => closeServer(server, 100))
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const release = undo.move()
  return { node, port, channels, [Symbol.asyncDispose]: () => release.disposeAsync() }
}

test('who brings a ticket is led to the guest, and neither end outlives the other', async () => {
  await using made = await world()
  for (const first of ['viewer', 'guest'] as const) {
    const { status, socket } = await askProxy(made.port, `${ticket}:5901`)
    assert.equal(status, 200)
    const channel = made.channels.pop()
    assert.ok(channel)
    let seen = ''
    socket.on('data', (part: Buffer) => (seen += part.toString()))
    socket.write('REDQ')
    channel.stream.write('x'.repeat(300_000))
    await waitFor(() => channel.got() === 'REDQ' && seen.length === 300_000, {
      what: 'bytes both ways',
      timeoutMs: 5_000,
    })
    const [leaver, other] = first === 'viewer' ? [socket, channel.stream] : [channel.stream, socket]
    leaver.end()
    await waitFor(() => other.destroyed, { what: 'the other end', timeoutMs: 5_000 })
  }
})

test('a ticket that does not hold, and whatever else is asked for, leads nowhere', async () => {
  await using made = await world()
  let visits = 0
  const bystander = createServer((socket) => {
    visits += 1
    socket.destroy()
  }).listen(0, '127.0.0.1')
  await once(bystander, 'listening')
  const place = bystander.address()
  assert.ok(typeof place === 'object' && place !== null)
  const asked = async (host: string) => {
    const { status, reason, socket } = await askProxy(made.port, host)
    socket.destroy()
    return [status, reason]
  }
  const noTicket = [401, 'permission denied - invalid SPICE ticket']
  assert.deepEqual(await asked(`${ticket}:5902`), noTicket)
  assert.deepEqual(await asked(`x${ticket}:5901`), noTicket)
  assert.deepEqual(await asked(`127.0.0.1:${place.port}`), noTicket)
  assert.deepEqual(await asked('localhost:22'), noTicket)
  assert.deepEqual(await asked('nobody.spice:5901'), [500, 'console 5901 does not exist'])
  for (const host of [ticket, `${ticket}:`, `${ticket}:590100`, `[::1]:22`, `a/../b:1`, `${'a'.repeat(254)}:1`]) {
    assert.deepEqual(await asked(host), [400, 'this is not what a viewer by SPICE asks for'], host)
  }
  const plain = await curl(['-x', `http://127.0.0.1:${made.port}`, '--noproxy', '', `http://127.0.0.1:${place.port}/`])
  assert.equal(plain.status, 405)
  assert.equal(visits, 0)
  assert.deepEqual(made.channels, [])
  bystander.close()
})

test('where the daemon does not answer, the viewer is told', async () => {
  const server = createSpicePort({ daemonSocket: '/nowhere/front.sock' })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  const { status, reason, socket } = await askProxy(address.port, `${ticket}:5901`)
  assert.deepEqual([status, reason], [500, 'the daemon of this node does not answer'])
  socket.destroy()
  await closeServer(server, 100)
})

test('nobody but the front can bring a viewer to the daemon', async () => {
  await using made = await world()
  const ask = ['-H', 'Connection: Upgrade', '-H', `Upgrade: ${spiceProtocol}`, '-H', `${spiceHeader}: ${ticket}:5901`]
  for (const [where, ...more] of [
    [`${made.node.url}/`],
    ['http://localhost/', '--unix-socket', made.node.apiSocket],
  ] as const) {
    const { status } = await curl([...ask, '--http1.1', ...more, where])
    assert.notEqual(status, 101, where)
  }
  assert.deepEqual(made.channels, [])
})
