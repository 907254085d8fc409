import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { waitFor } from '#base/clock.ts'
import { KiB, MiB } from '#base/bytes.ts'
import { acceptOf, webSocketBounds, WebSocketStream } from './websocket-stream.ts'

interface Pair extends AsyncDisposable {
  readonly server: WebSocketStream
  /** The other end as bytes. */
  readonly wire: Socket
  readonly accepted: Socket
}

async function pair(options: { pingEveryMs?: number } = {}): Promise<Pair> {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const address = listener.address()
  assert.ok(typeof address === 'object' && address !== null)
  const wire = connect(address.port, '127.0.0.1')
  const [accepted] = (await once(listener, 'connection')) as [Socket]
  const server = new WebSocketStream(accepted, Buffer.alloc(0), options)
  server.on('error', () => {})
  wire.on('error', () => {})
  return {
    server,
    wire,
    accepted,
    async [Symbol.asyncDispose]() {
      server.destroy()
      wire.destroy()
      listener.close()
      await once(listener, 'close')
    },
  }
}

/** A frame of a client. */
function frame(first: number, payload: Uint8Array, mask = Buffer.of(1, 2, 3, 4)): Buffer {
  const { length } = payload
  const size = length < 126 ? Buffer.of(0x80 | length) : Buffer.of(0x80 | 126, length >> 8, length & 255)
  return Buffer.concat([
    Buffer.of(first),
    size,
    mask,
    Buffer.from(payload.map((byte, at) => byte ^ (mask[at % 4] ?? 0))),
  ])
}

async function allOf(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of stream as AsyncIterable<Buffer>) parts.push(part)
  return Buffer.concat(parts)
}

test('the answer to the key is the one of RFC 6455', () => {
  assert.equal(acceptOf('dGhlIHNhbXBsZSBub25jZQ=='), 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
})

test('what one side writes the other reads, however it is cut into pieces', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 200_000 }), { maxLength: 4 }), async (parts) => {
      await using ends = await pair()
      const client = new WebSocketStream(ends.wire, Buffer.alloc(0), { isClient: true })
      const sent = Buffer.concat(parts)
      for (const part of parts) client.write(part)
      ends.server.pipe(ends.server)
      const echoed: Buffer[] = []
      let size = 0
      if (sent.length === 0) client.end()
      client.on('data', (part: Buffer) => {
        echoed.push(part)
        size += part.length
        // Whoever says goodbye hears nothing more.
        if (size === sent.length) client.end()
      })
      await once(client, 'close')
      assert.deepEqual(Buffer.concat(echoed), sent)
    }),
    { numRuns: 20 },
  )
})

test('text, binary and continued frames are one stream, byte by byte too', async () => {
  await using ends = await pair()
  const bytes = Buffer.concat([
    frame(0x81, Buffer.from('text ')),
    frame(0x02, Buffer.from('begun ')),
    frame(0x89, Buffer.from('ping')),
    frame(0x80, Buffer.alloc(300, 'x')),
    frame(0x82, Buffer.alloc(0)),
    frame(0x88, Buffer.of(0x03, 0xe8)),
  ])
  const read = allOf(ends.server)
  for (const byte of bytes) ends.wire.write(Buffer.of(byte))
  assert.equal((await read).toString(), `text begun ${'x'.repeat(300)}`)
  const answer = await allOf(ends.wire)
  assert.deepEqual(answer.subarray(0, 6), Buffer.from('\x8a\x04ping', 'latin1'))
  assert.deepEqual(answer.subarray(6), Buffer.of(0x88, 2, 0x03, 0xe8))
})

test('what is no frame ends the connection with the reason', async () => {
  const wrong: [string, Buffer, number][] = [
    ['no mask', Buffer.of(0x82, 0x01, 0x41), 1002],
    ['a reserved bit', frame(0xc2, Buffer.of(1)), 1002],
    ['an unknown kind', frame(0x83, Buffer.of(1)), 1002],
    ['a long ping', frame(0x89, Buffer.alloc(126)), 1002],
    ['a ping in parts', frame(0x09, Buffer.alloc(1)), 1002],
    ['too long', Buffer.from('82ff0000000000400001', 'hex'), 1009],
  ]
  for (const [name, bytes, code] of wrong) {
    await using ends = await pair()
    ends.wire.write(Buffer.concat([bytes, Buffer.alloc(16)]))
    const answer = await allOf(ends.wire)
    assert.deepEqual([answer[0], answer.readUInt16BE(2)], [0x88, code], name)
    assert.ok(ends.server.destroyed, name)
  }
})

test('a failure is told in the closing words, cut where they would be too long', async () => {
  await using ends = await pair()
  ends.server.destroy(new Error(`${'é'.repeat(100)}`))
  const answer = await allOf(ends.wire)
  assert.deepEqual([answer[0], answer.readUInt16BE(2)], [0x88, 1011])
  assert.match(answer.toString('utf8', 4), /^é{59,60}$/)
})

test('a reader who does not read stops the writer; nothing piles up', async () => {
  await using ends = await pair()
  ends.wire.pause()
  let taken = 0
  const piece = Buffer.alloc(MiB)
  const write = () => {
    ends.server.write(piece, () => {
      taken += 1
      if (taken < 200) write()
    })
  }
  write()
  let before = -1
  await waitFor(
    () => {
      const isSame = taken === before
      before = taken
      return isSame
    },
    { what: 'a writer that waits', timeoutMs: 60_000, everyMs: 200 },
  )
  assert.ok(taken < 30, `${taken} MiB were taken`)
  assert.ok(ends.accepted.writableLength <= 2 * MiB)
})

test('who does not read what comes in stops the sender', async () => {
  await using ends = await pair()
  const sent = frame(0x82, Buffer.alloc(60 * KiB))
  let isFull = false
  for (let count = 0; count < 1_000 && !isFull; count += 1)
    isFull = !ends.wire.write(sent) && ends.wire.writableLength > 20 * MiB
  assert.ok(isFull)
  await waitFor(() => ends.accepted.isPaused(), { what: 'a socket that waits', timeoutMs: 60_000 })
  assert.ok(ends.server.readableLength <= 256 * KiB, `${ends.server.readableLength} bytes are held`)
})

test('a peer that answers no ping is gone', async () => {
  await using ends = await pair({ pingEveryMs: 20 })
  ends.server.resume()
  ends.wire.pause()
  await waitFor(() => ends.server.destroyed, { what: 'the end of the connection', timeoutMs: 60_000 })
  assert.match(String(ends.server.errored), /no sign of life/)
})

test('a peer that answers stays', async () => {
  await using ends = await pair({ pingEveryMs: 10 })
  ends.server.resume()
  let pings = 0
  ends.wire.on('data', () => {
    pings += 1
    ends.wire.write(frame(0x8a, Buffer.alloc(0)))
  })
  await waitFor(() => pings >= 5, { what: 'five pings', timeoutMs: 60_000 })
  assert.equal(ends.server.destroyed, false)
})

test('who never says goodbye does not keep the connection', async () => {
  await using ends = await pair()
  ends.server.resume()
  ends.wire.resume()
  const started = performance.now()
  ends.server.end()
  await once(ends.server, 'close')
  assert.ok(performance.now() - started < webSocketBounds.closingMs * 3)
})
