/** The daemon's connections: an error must not close one under the hands of its peer. */
import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { describe, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { demoNode } from '../../test/contract/demo.ts'

/** A connection with all it has received so far. */
function conversation(path: string) {
  const socket: Socket = connect(path)
  let got = ''
  socket.setEncoding('latin1').on('data', (part: string) => (got += part))
  socket.on('error', () => {}) // A reset says the same as an end.
  return {
    socket,
    replies: (count: number) =>
      waitFor(() => (got.match(/HTTP\/1\.1 \d+ [^\r]*/g) ?? []).length >= count || socket.closed, {
        what: `${count} replies`,
        timeoutMs: 60_000,
        everyMs: 5,
      }).then(() => got.match(/HTTP\/1\.1 \d+ [^\r]*/g) ?? []),
    [Symbol.dispose]: () => socket.destroy(),
  }
}

const post = (path: string, body: string, more = '') =>
  `POST /api2/json${path} HTTP/1.1\r\nHost: x\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`
const read = (path: string, more = '') => `GET /api2/json${path} HTTP/1.1\r\nHost: x\r\n${more}\r\n`

describe('a connection of this machine outlives an error', () => {
  for (const name of ['apiSocket', 'frontSocket'] as const) {
    test(`on ${name}`, async () => {
      await using node = await demoNode()
      using talk = conversation(node[name])
      talk.socket.write(post('/no/such/method', 'a=b'))
      await talk.replies(1)
      // GET takes no body: refused before it has arrived.
      talk.socket.write(read('/version', 'Content-Length: 3\r\n'))
      await talk.replies(2)
      talk.socket.write(`a=b${read('/access/domains')}`)
      const lines = await talk.replies(3)
      assert.equal(lines.length, 3, lines.join('\n'))
      assert.match(lines[1] ?? '', / 501 /)
      assert.match(lines[2] ?? '', / 200 /)
    })
  }

  test('but not a peer that goes on sending what was refused', async () => {
    await using node = await demoNode()
    using talk = conversation(node.apiSocket)
    talk.socket.write(read('/version', 'Content-Length: 1000000000\r\n'))
    const [line] = await talk.replies(1)
    assert.match(line ?? '', / 501 /)
    const send = () => {
      while (!talk.socket.destroyed && talk.socket.write('x'.repeat(65_536)));
    }
    talk.socket.on('drain', send)
    send()
    await waitFor(() => talk.socket.closed, { what: 'the end of the connection', timeoutMs: 60_000, everyMs: 10 })
    assert.ok(talk.socket.bytesWritten < 100_000_000)
  })
})
