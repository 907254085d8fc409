/** Frames between front and daemon, by themselves and over real sockets. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { curl } from '../../test/contract/curl.ts'
import { demoDispatcher, demoNode, ticketOf } from '../../test/contract/demo.ts'
import { callProtocol, type Frame, FrameReader, frameBytes, frameLimits } from './call-frame.ts'
import { createCallLink } from './call-link.ts'
import { callFrom, type LinkCall, type LinkReply } from './call-message.ts'
import type { Fault } from '#base/fault.ts'

const root = { cookie: `PVEAuthCookie=${ticketOf('root@pam')}` }
const call = (method: string, path: string, headers: LinkCall['headers'] = root): LinkCall => ({
  method,
  target: `/api2/json${path}`,
  remoteAddress: '192.0.2.1',
  headers,
})

function answer(link: ReturnType<typeof createCallLink>, asked: LinkCall): Promise<LinkReply | Fault> {
  return new Promise((resolve) => link.send(asked, resolve))
}

const dataOf = (reply: LinkReply | Fault) =>
  'body' in reply ? (JSON.parse(Buffer.from(reply.body).toString()) as { data: unknown }).data : reply

describe('frames', () => {
  test('come out as they went in, whatever pieces they arrive in', () => {
    const frame = fc.record({
      kind: fc.constantFrom('call' as const, 'cancel' as const, 'reply' as const),
      id: fc.integer({ min: 0, max: 0xffff_ffff }),
      head: fc.jsonValue().filter((value) => !Object.is(value, -0) && !JSON.stringify(value).includes('-0')),
      body: fc.uint8Array({ maxLength: 200 }),
    })
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 5 }), fc.integer({ min: 1, max: 50 }), (frames, step) => {
        const bytes = Buffer.concat(frames.map(({ kind, id, head, body }) => frameBytes(kind, id, head, body)))
        const got: Frame[] = []
        const reader = new FrameReader(frameLimits.callBytes, (one) => got.push(one))
        for (let at = 0; at < bytes.length; at += step) reader.push(bytes.subarray(at, at + step))
        assert.deepEqual(
          got.map(({ body, ...rest }) => ({ ...rest, body: [...body] })),
          frames.map(({ body, ...rest }) => ({
            ...rest,
            head: JSON.parse(JSON.stringify(rest.head)),
            body: [...body],
          })),
        )
      }),
    )
  })

  test('text bodies are UTF-8', () => {
    const reader = new FrameReader(1000, ({ body }) => assert.equal(Buffer.from(body).toString(), 'schön 日本'))
    reader.push(frameBytes('reply', 1, {}, 'schön 日本'))
  })

  test('what is no frame, no call or too long is refused before it is held', () => {
    const reader = () => new FrameReader(100, ({ head }) => void callFrom(head))
    const long = Buffer.alloc(4)
    long.writeUInt32LE(101)
    assert.throws(() => reader().push(long), /a frame of 101 bytes/)
    assert.throws(() => reader().push(Buffer.from('GET / HTTP/1.1\r\n')), /a frame of/)
    assert.throws(() => reader().push(Buffer.from([9, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0])), /no frame/)
    assert.throws(() => reader().push(frameBytes('call', 1, { method: 'GET', target: 1 })), /no call/)
  })
})

describe('the link', () => {
  test('carries many calls at once, each with its own proof', async () => {
    await using node = await demoNode()
    const link = createCallLink(node.frontSocket)
    const people = ['root@pam', 'ann@pve', 'bob@pve', 'nobody']
    const got = await Promise.all(
      Array.from({ length: 200 }, (_, at) => {
        const cookie = `PVEAuthCookie=${at % 4 === 3 ? 'PVE:x:bad' : ticketOf(people[at % 4] ?? '')}`
        return answer(link, call('GET', '/whoami', { cookie }))
      }),
    )
    for (const [at, reply] of got.entries()) {
      assert.ok('body' in reply)
      if (at % 4 === 3) assert.equal(reply.status, 401)
      else assert.deepEqual(dataOf(reply), { authid: people[at % 4], remote: '192.0.2.1' })
    }
    link.close()
  })

  test('is the front\u2019s alone: on the local socket and on the public port it is an ordinary request', async () => {
    await using node = await demoNode()
    const upgrade = ['-H', `Upgrade: ${callProtocol}`, '-H', 'Connection: Upgrade']
    const local = await curl([...upgrade, '--unix-socket', node.apiSocket, 'http://local/'])
    assert.equal(local.status, 501)
    const outside = await curl([...upgrade, '-b', root.cookie, `${node.url}/api2/json/version`])
    assert.deepEqual([outside.status, outside.headers.upgrade], [200, undefined])
  })

  test('ends when the front sends something else, and the daemon says so', async () => {
    await using node = await demoNode()
    const socket = connect(node.frontSocket)
    socket.write(`GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${callProtocol}\r\n\r\nnonsense`)
    socket.on('error', () => {}) // A reset is an end like any other.
    socket.resume()
    await new Promise((resolve) => socket.once('close', resolve))
    assert.match(node.log.lines.join('\n'), /the front sent something else than calls/)
  })

  test('lets no call begin while the replies before it have yet to leave', async () => {
    let begun = 0
    const body = 'x'.repeat(MiB)
    const handle = async () => {
      begun += 1
      return { status: 200, reason: 'OK', contentType: 'text/plain', body }
    }
    await using node = await demoNode({ changes: { dispatcher: { ...demoDispatcher(), handle } } })
    const socket = connect(node.frontSocket)
    socket.write(`GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${callProtocol}\r\n\r\n`)
    socket.pause()
    for (let id = 1; id <= 200; id += 1) socket.write(frameBytes('call', id, call('GET', '/version')))
    // Given up before it begins.
    socket.write(frameBytes('cancel', 150))
    let before = -1
    await waitFor(
      () => {
        const isStill = begun > 0 && begun === before
        before = begun
        return isStill
      },
      { what: 'the daemon to wait', timeoutMs: 60_000, everyMs: 100 },
    )
    assert.ok(begun <= 40, `${begun} have begun`)
    socket.resume()
    await waitFor(() => begun === 199, { what: 'all others to be answered', timeoutMs: 60_000 })
    socket.destroy()
  })

  test('tells the daemon that a client has gone', async () => {
    const { promise: asked, resolve: ask } = Promise.withResolvers<AbortSignal>()
    const dispatcher = {
      ...demoDispatcher(),
      handle: ({ signal }: { signal: AbortSignal }) => {
        ask(signal)
        return new Promise<never>(() => {})
      },
    }
    await using node = await demoNode({ changes: { dispatcher } })
    const link = createCallLink(node.frontSocket)
    const giveUp = link.send(call('GET', '/version'), () => assert.fail('nobody waits any more'))
    const signal = await asked
    assert.equal(signal.aborted, false)
    giveUp()
    await waitFor(() => signal.aborted, { what: 'the news', timeoutMs: 60_000, everyMs: 5 })
    link.close()
  })
})

describe('a daemon that dies', () => {
  /** Agrees to frames, and hangs up at the first call as often as it is told to. */
  async function mortalDaemon(deaths: number) {
    const directory = await mkdtemp(join(tmpdir(), 'hako-link-'))
    const path = join(directory, 'front.sock')
    let seen = 0
    const server = createServer((socket: Socket) => {
      socket.on('error', () => {}) // It hangs up itself.
      const reader = new FrameReader(frameLimits.callBytes, ({ id }) => {
        seen += 1
        if (seen <= deaths) socket.destroy()
        else socket.write(frameBytes('reply', id, { status: 200, reason: 'OK', contentType: 'text/plain' }, 'alive'))
      })
      socket.once('data', (hello: Buffer) => {
        socket.write('HTTP/1.1 101 Switching Protocols\r\n\r\n')
        socket.on('data', (part: Buffer) => reader.push(part))
        reader.push(hello.subarray(hello.indexOf('\r\n\r\n') + 4))
      })
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    return {
      path,
      seen: () => seen,
      async [Symbol.asyncDispose]() {
        server.close()
        await rm(directory, { recursive: true, force: true })
      },
    }
  }

  test('a read is asked for once more, and no more than that', async () => {
    await using once = await mortalDaemon(1)
    const link = createCallLink(once.path)
    const reply = await answer(link, call('GET', '/version'))
    assert.ok('body' in reply && Buffer.from(reply.body).toString() === 'alive')
    link.close()
    await using twice = await mortalDaemon(2)
    const failed = await answer(createCallLink(twice.path), call('GET', '/version'))
    assert.ok(isFault(failed, 'unavailable') && failed.remedy !== undefined)
    assert.equal(twice.seen(), 2)
  })

  test('what changes something is never asked for twice', async () => {
    await using node = await mortalDaemon(1)
    assert.ok(isFault(await answer(createCallLink(node.path), call('DELETE', '/x')), 'unavailable'))
    assert.equal(node.seen(), 1)
  })

  test('and where there is none, everybody hears of it', async () => {
    const link = createCallLink('/nonexistent/front.sock')
    const got = await Promise.all([1, 2, 3].map(() => answer(link, call('GET', '/version'))))
    assert.ok(got.every((reply) => isFault(reply, 'unavailable')))
  })
})
