import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { systemClock, waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { consoleLimits } from './limits.ts'
import { answerTo, serveScreen } from './screen.ts'
import { ConsoleService } from './service.ts'
import { SharedLines } from './shared-line.ts'
import { lineWithTwoEnds } from './small-console.ts'
import { serveTerminal, TypedText } from './terminal.ts'

/** Everything a stream has said so far. */
function heard(stream: Duplex): () => string {
  let text = ''
  stream.on('error', () => {})
  stream.on('data', (part: Buffer) => (text += part.toString('latin1')))
  return () => text
}

const until = (is: () => boolean, what = 'what is expected') => waitFor(is, { what, timeoutMs: 60_000 })

// Which consoles there are

function task() {
  const stop = new AbortController()
  const ended = Promise.withResolvers<string>()
  return {
    stop,
    ended: ended.promise,
    facts: { log: () => {}, signal: stop.signal, end: async (status: string) => ended.resolve(status) },
  }
}

function opened(
  service: ConsoleService,
  more: { serve?: (client: Duplex) => Promise<void>; mayStill?: () => boolean } = {},
) {
  const { port } = service.promise('bob@pve')
  const { stop, ended, facts } = task()
  service.open(port, {
    ticket: `ticket ${port}`,
    task: facts,
    serve: more.serve ?? (async (client) => void (await once(client.resume(), 'close'))),
    mayStill: async () => more.mayStill?.() ?? true,
  })
  return { port, ticket: `ticket ${port}`, stop, ended }
}

test('nobody comes: the console is given up, and its number is free again', async () => {
  const service = new ConsoleService({ clock: systemClock, log: silentLog, waitMs: 20 })
  const { ended, port, ticket } = opened(service)
  assert.equal(await ended, 'nobody connected within 0.02 s')
  assert.throws(
    () => service.take(port, ticket),
    (fault) => isFault(fault, 'missing'),
  )
  for (let count = 0; count < 100; count += 1) service.promise(`user${count}@pve`)
})

test('a console is taken by its own ticket, once', async () => {
  const service = new ConsoleService({ clock: systemClock, log: silentLog })
  const { port, ticket, ended } = opened(service)
  for (const wrong of ['', 'ticket', `${ticket} `, `ticket ${port + 1}`]) {
    assert.throws(
      () => service.take(port, wrong),
      (fault) => isFault(fault, 'missing'),
    )
  }
  assert.throws(
    () => service.take(port + 1, ticket),
    (fault) => isFault(fault, 'missing'),
  )
  const [client, far] = lineWithTwoEnds()
  service.take(port, ticket)(client)
  assert.throws(
    () => service.take(port, ticket),
    (fault) => isFault(fault, 'missing'),
  )
  far.destroy()
  client.destroy()
  assert.equal(await ended, 'OK')
})

test('there are only so many, and one user leaves room for others', () => {
  const service = new ConsoleService({ clock: systemClock, log: silentLog })
  const ports = Array.from({ length: consoleLimits.perUser }, () => service.promise('bob@pve').port)
  assert.equal(new Set(ports).size, ports.length)
  assert.throws(
    () => service.promise('bob@pve'),
    (fault) => isFault(fault, 'exhausted'),
  )
  const room = consoleLimits.lastPort - consoleLimits.firstPort + 1 - ports.length
  const others = Array.from({ length: room }, (_, at) => service.promise(`u${at}@pve`))
  assert.throws(
    () => service.promise('alice@pve'),
    (fault) => isFault(fault, 'exhausted'),
  )
  others[0]?.giveBack()
  assert.equal(service.promise('alice@pve').port, others[0]?.port)
})

test('a console ends when its task is stopped, its user may no longer look, its line fails, the node ends', async () => {
  const serve = (service: ConsoleService, more: Parameters<typeof opened>[1] = {}) => {
    const facts = opened(service, more)
    const [client, far] = lineWithTwoEnds()
    heard(far)
    service.take(facts.port, facts.ticket)(client)
    return { ...facts, client }
  }
  const service = new ConsoleService({ clock: systemClock, log: silentLog, askAgainMs: 20 })
  const stopped = serve(service)
  stopped.stop.abort()
  assert.equal(await stopped.ended, 'stopped')
  assert.ok(stopped.client.destroyed)

  let may = true
  const watched = serve(service, { mayStill: () => may })
  may = false
  assert.equal(await watched.ended, 'the user may no longer look at it')
  assert.ok(watched.client.destroyed)

  const failed = serve(service, { serve: () => Promise.reject(new Fault('conflict', 'VM 100 not running')) })
  assert.equal(await failed.ended, 'VM 100 not running')
  assert.ok(failed.client.destroyed)

  const [open, waiting] = [serve(service), opened(service)]
  await service.close()
  assert.deepEqual(await Promise.all([open.ended, waiting.ended]), Array(2).fill('the node is shutting down'))
  assert.throws(
    () => service.promise('bob@pve'),
    (fault) => isFault(fault, 'unavailable'),
  )
})

// Terminals

function typed(parts: readonly Uint8Array[]): { text: Buffer; sizes: [number, number][]; fault: unknown } {
  const sizes: [number, number][] = []
  const reader = new TypedText((columns, rows) => sizes.push([columns, rows]))
  let fault: unknown
  reader.on('error', (error) => (fault = error))
  const text: Buffer[] = []
  reader.on('data', (part: Buffer) => text.push(part))
  for (const part of parts) reader._transform(Buffer.from(part), 'utf8', (error) => (fault ??= error ?? undefined))
  for (let part = reader.read() as Buffer | null; part !== null; part = reader.read() as Buffer | null) text.push(part)
  return { text: Buffer.concat(text), sizes, fault }
}

test('what is typed comes through whole, however the messages are cut', () => {
  const message = fc.oneof(
    fc.uint8Array({ maxLength: 50 }).map((bytes) => ({
      wire: Buffer.concat([Buffer.from(`0:${bytes.length}:`), bytes]),
      bytes,
      size: [] as [number, number][],
    })),
    fc
      .tuple(fc.integer({ min: 1, max: 4096 }), fc.integer({ min: 1, max: 4096 }))
      .map((size) => ({ wire: Buffer.from(`1:${size[0]}:${size[1]}:`), bytes: new Uint8Array(), size: [size] })),
    fc.constant({ wire: Buffer.from('2'), bytes: new Uint8Array(), size: [] as [number, number][] }),
  )
  fc.assert(
    fc.property(fc.array(message), fc.integer({ min: 1, max: 40 }), (messages, step) => {
      const wire = Buffer.concat(messages.map((one) => one.wire))
      const parts = Array.from({ length: Math.ceil(wire.length / step) }, (_, at) =>
        wire.subarray(at * step, at * step + step),
      )
      const { text, sizes, fault } = typed(parts)
      assert.equal(fault, undefined)
      assert.deepEqual(text, Buffer.concat(messages.map(({ bytes }) => bytes)))
      assert.deepEqual(
        sizes,
        messages.flatMap(({ size }) => size),
      )
    }),
  )
})

test('what is no message, or out of bounds, is refused before it is held', () => {
  for (const text of [
    '3',
    '0x',
    '0:-1:',
    '0:4194305:',
    '1:0:10:',
    '1:80:',
    '1:80:99999:',
    '1:4097:1:',
    `0:${'1'.repeat(64)}`,
    'GET / HTTP/1.1',
  ]) {
    const { fault, text: passed } = typed([Buffer.from(text)])
    // Half a message is not wrong yet.
    if (text === '1:80:') assert.equal(fault, undefined)
    else assert.ok(isFault(fault, 'invalid'), text)
    assert.equal(passed.length, 0)
  }
})

test('a terminal begins with the right line, or not at all', async () => {
  for (const greeting of ['bob@pve:wrong\n', 'eve@pve:ticket\n', `${'x'.repeat(2_000)}`, '\n']) {
    const [client, far] = lineWithTwoEnds()
    const said = heard(far)
    far.write(greeting)
    const connect = () => assert.fail('connected')
    await assert.rejects(serveTerminal(client, { user: 'bob@pve', ticket: 'ticket', connect }))
    assert.equal(said(), '')
  }
  const [client] = lineWithTwoEnds()
  const facts = { user: 'bob@pve', ticket: 'ticket', connect: () => assert.fail('connected'), greetingMs: 20 }
  await assert.rejects(serveTerminal(client, facts), /took too long/)
})

test('a terminal carries both ways, and what was said last arrives before the end', async () => {
  const [client, far] = lineWithTwoEnds()
  const [line, guest] = lineWithTwoEnds()
  const [seen, got] = [heard(far), heard(guest)]
  far.write('bob@pve:ticket\n0:2:l')
  const done = serveTerminal(client, { user: 'bob@pve', ticket: 'ticket', connect: async () => ({ stream: line }) })
  await until(() => seen() === 'OK')
  far.write('s20:1:\n')
  await until(() => got() === 'ls\n')
  far.pause()
  guest.write('x'.repeat(200_000))
  guest.end('bye')
  far.resume()
  await until(() => seen() === `OK${'x'.repeat(200_000)}bye`)
  far.end()
  await done
})

// One serial port, several viewers

test('all who look see the same, one who does not read misses some and is told, and nobody waits for him', async () => {
  const lines = new SharedLines()
  const [source, guest] = lineWithTwoEnds()
  let connections = 0
  const connect = async () => {
    connections += 1
    return source
  }
  const [quick, slow] = await Promise.all([lines.join('100/serial0', connect), lines.join('100/serial0', connect)])
  assert.equal(connections, 1)
  let taken = 0
  quick.on('data', (part: Buffer) => (taken += part.length))
  const sent = 4 * 1024 * 1024
  const part = Buffer.alloc(16 * 1024, 'y')
  for (let count = 0; count < sent / part.length; count += 1) {
    if (!guest.write(part)) await once(guest, 'drain')
  }
  await until(() => taken === sent)
  assert.ok(slow.readableLength <= consoleLimits.unreadBytes + 64 * 1024, `${slow.readableLength} bytes are held`)
  const seen = heard(slow)
  await until(() => seen().length >= consoleLimits.unreadBytes)
  guest.write('and on')
  await until(() => seen().endsWith('and on'))
  assert.match(seen(), /some output is missing here/)
  slow.write('typed')
  const got = heard(guest)
  await until(() => got() === 'typed')
})

test('the last viewer closes the line, and the end of the line ends every viewer', async () => {
  const lines = new SharedLines()
  const ends: Duplex[] = []
  const connect = async () => {
    const [source, guest] = lineWithTwoEnds()
    ends.push(guest)
    heard(guest)
    return source
  }
  const [a, b] = [await lines.join('x', connect), await lines.join('x', connect)]
  for (const viewer of [a, b]) heard(viewer)
  a.destroy()
  await once(a, 'close')
  assert.equal(ends.length, 1)
  b.destroy()
  await until(() => ends[0]?.readableEnded === true)
  const c = await lines.join('x', connect)
  heard(c)
  assert.equal(ends.length, 2)
  ends[1]?.end()
  await once(c, 'end')
  await assert.rejects(
    lines.join('y', () => Promise.reject(new Error('no line'))),
    /no line/,
  )
  await lines.join('y', connect)
})

// Screens

/** A client of VNC, as far as the door. */
async function knock(version: string, password: string): Promise<{ said: Buffer; passed: string; fault: unknown }> {
  const [client, far] = lineWithTwoEnds()
  const [line, qemu] = lineWithTwoEnds()
  far.on('error', () => {})
  let said = Buffer.alloc(0)
  far.on('data', (part: Buffer) => (said = Buffer.concat([said, part])))
  const passed = heard(qemu)
  qemu.write('RFB 003.008\n')
  qemu.write(Buffer.of(1, 1))
  qemu.write(Buffer.alloc(4))
  let fault: unknown
  const done = serveScreen(client, { password: 'abcdefgh', random: systemRandom, connect: async () => line }).catch(
    (error: unknown) => (fault = error),
  )
  await until(() => said.length === 12)
  far.write(`RFB ${version}\n`)
  const isOld = version === '003.003'
  if (!isOld) {
    await until(() => said.length === 14)
    far.write(Buffer.of(2))
  }
  const begin = 12 + (isOld ? 4 : 2)
  await until(() => said.length === begin + 16)
  far.write(answerTo(said.subarray(begin), password))
  await until(() => said.length >= begin + 20)
  far.end(Buffer.of(1))
  await done
  return { said: said.subarray(begin + 16), passed: passed(), fault }
}

test('the door of a screen opens by its password, in every version of VNC', async () => {
  for (const version of ['003.003', '003.007', '003.008']) {
    const { said, passed } = await knock(version, 'abcdefgh')
    assert.deepEqual(said.subarray(0, 4), Buffer.alloc(4), version)
    assert.equal(passed, 'RFB 003.008\n\x01\x01', version)
    const refused = await knock(version, 'abcdefgi')
    assert.equal(refused.said.readUInt32BE(), 1, version)
    assert.equal(refused.passed, '', version)
    assert.ok(isFault(refused.fault, 'unauthenticated'), version)
  }
})

test('only the first eight characters of a password count, each of them', () => {
  const challenge = systemRandom.bytes(16)
  const right = answerTo(challenge, 'abcdefgh')
  assert.deepEqual(answerTo(challenge, 'abcdefghi'), right)
  for (const wrong of ['abcdefg', 'abcdefgH', 'bbcdefgh', '']) assert.notDeepEqual(answerTo(challenge, wrong), right)
})
