import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { serveImage } from '../../../test/fixtures/nbd-server.ts'
import { machine } from '../exec.ts'
import { NbdClient } from './nbd.ts'
import type { NbdExtent } from './nbd-status.ts'
import { openImage } from './nbd-server.ts'

const host = machine()

async function inDirectory(work: (path: string) => Promise<void>): Promise<void> {
  const path = await mkdtemp(join(tmpdir(), 'hako-nbd-'))
  try {
    await work(path)
  } finally {
    await rm(path, { recursive: true })
  }
}

/** A sparse raw image with data at 1 MiB and at 40 MiB, and the same as qcow2. */
async function images(path: string): Promise<{ raw: string; qcow2: string; content: Buffer }> {
  const [raw, qcow2] = [join(path, 'disk.raw'), join(path, 'disk.qcow2')]
  const content = Buffer.alloc(64 * MiB)
  for (const at of [1 * MiB, 40 * MiB]) content.set(randomBytes(3 * MiB), at)
  const file = await open(raw, 'w')
  await file.truncate(content.length)
  for (const at of [1 * MiB, 40 * MiB]) await file.write(content, at, 3 * MiB, at)
  await file.close()
  await host.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2])
  return { raw, qcow2, content }
}

async function all(extents: AsyncIterable<NbdExtent>): Promise<NbdExtent[]> {
  const list: NbdExtent[] = []
  for await (const extent of extents) list.push(extent)
  return list
}

for (const format of ['raw', 'qcow2'] as const) {
  test(`a ${format} image reads the same over NBD, and its holes are known`, () =>
    inDirectory(async (path) => {
      const made = await images(path)
      const socket = join(path, 'nbd.sock')
      await using _server = await serveImage(made[format], format, socket, ['--read-only'])
      await using client = await NbdClient.connect(socket)
      assert.equal(client.sizeBytes, made.content.length)
      const extents = await all(client.extents())
      let end = 0
      for (const { offset, length, isZero } of extents) {
        assert.equal(offset, end)
        end += length
        if (isZero) assert.ok(made.content.subarray(offset, offset + length).equals(Buffer.alloc(length)))
      }
      assert.equal(end, made.content.length)
      const zeroBytes = extents.filter(({ isZero }) => isZero).reduce((sum, { length }) => sum + length, 0)
      assert.ok(zeroBytes >= 57 * MiB, `${zeroBytes} bytes are known as zero`)
      const read = Buffer.alloc(made.content.length, 1)
      const parts = Array.from({ length: 64 }, (_, part) =>
        client.read(part * MiB, read.subarray(part * MiB, (part + 1) * MiB)),
      )
      await Promise.all(parts)
      assert.ok(read.equals(made.content))
      await Promise.all(
        Array.from({ length: 200 }, async () => {
          const [from, length] = [randomInt(60 * MiB), 1 + randomInt(300 * KiB)]
          const into = Buffer.alloc(length, 7)
          await client.read(from, into)
          assert.ok(into.equals(made.content.subarray(from, from + length)))
        }),
      )
      await assert.rejects(client.write(0, Buffer.alloc(512)), (error) => isFault(error, 'denied'))
      await assert.rejects(client.read(64 * MiB - 1, Buffer.alloc(2)), (error) => isFault(error, 'invalid'))
    }))
}

test('what is written over NBD is in the image, and what was not stays a hole', () =>
  inDirectory(async (path) => {
    const [image, socket] = [join(path, 'disk.qcow2'), join(path, 'nbd.sock')]
    await host.run(['qemu-img', 'create', '-f', 'qcow2', image, '64M'])
    const content = Buffer.alloc(64 * MiB)
    {
      await using _server = await serveImage(image, 'qcow2', socket)
      await using client = await NbdClient.connect(socket)
      for (let round = 0; round < 20; round += 1) {
        const [at, bytes] = [randomInt(600) * 64 * KiB, randomBytes(128 * KiB)]
        content.set(bytes, at)
        await client.write(at, bytes)
      }
      await client.flush()
    }
    await host.run(['qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', image, join(path, 'disk.raw')])
    assert.ok((await readFile(join(path, 'disk.raw'))).equals(content))
  }))

test('a full file system behind the server is a fault of kind exhausted', () =>
  inDirectory(async (path) => {
    const mounted = join(path, 'full')
    await host.run(['mkdir', mounted])
    await host.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'hako-test', mounted])
    try {
      const [image, socket] = [join(mounted, 'disk.raw'), join(path, 'nbd.sock')]
      await host.run(['truncate', '-s', '16M', image])
      await using _server = await serveImage(image, 'raw', socket)
      await using client = await NbdClient.connect(socket)
      await assert.rejects(client.write(0, randomBytes(4 * MiB)), (error) => isFault(error, 'exhausted'))
    } finally {
      await host.run(['umount', mounted])
    }
  }))

test('an export that does not exist, and a server that does not, are named', () =>
  inDirectory(async (path) => {
    const { raw } = await images(path)
    const socket = join(path, 'nbd.sock')
    await assert.rejects(NbdClient.connect(socket), (error) => isFault(error, 'unavailable'))
    await using server = await serveImage(raw, 'raw', socket, ['--export-name=scsi0'])
    await assert.rejects(NbdClient.connect(socket, { exportName: 'scsi1' }), /has no export 'scsi1'/)
    const listener = { pid: server.pid, uid: process.getuid?.() ?? 0 }
    await assert.rejects(
      NbdClient.connect(socket, { exportName: 'scsi0', listener: { ...listener, pid: process.pid } }),
      (error) => isFault(error, 'denied'),
    )
    await using _client = await NbdClient.connect(socket, { exportName: 'scsi0', listener })
  }))

test('a server that is killed fails every read under way at once', () =>
  inDirectory(async (path) => {
    const { raw } = await images(path)
    const socket = join(path, 'nbd.sock')
    await using server = await serveImage(raw, 'raw', socket)
    await using client = await NbdClient.connect(socket)
    process.kill(server.pid, 'SIGSTOP')
    const reads = Array.from({ length: 40 }, () => client.read(0, Buffer.alloc(MiB)))
    process.kill(server.pid, 'SIGKILL')
    for (const result of await Promise.allSettled(reads)) {
      assert.ok(result.status === 'rejected' && isFault(result.reason, 'unavailable'))
    }
    await assert.rejects(client.read(0, Buffer.alloc(1)), (error) => isFault(error, 'unavailable'))
  }))

test('a server that falls silent ends in a time-out, an abort in an abort', () =>
  inDirectory(async (path) => {
    const { raw } = await images(path)
    const socket = join(path, 'nbd.sock')
    await using server = await serveImage(raw, 'raw', socket)
    await using client = await NbdClient.connect(socket, { timeoutMs: 1_500 })
    const abort = new AbortController()
    await using other = await NbdClient.connect(socket, { signal: abort.signal })
    process.kill(server.pid, 'SIGSTOP')
    const aborted = other.read(0, Buffer.alloc(MiB))
    await assert.rejects(client.read(0, Buffer.alloc(MiB)), (error) => isFault(error, 'timeout'))
    abort.abort()
    await assert.rejects(aborted, (error) => isFault(error, 'aborted'))
  }))

// Hostile servers: a good handshake, then whatever the case sends.

const u16 = (value: number) => Buffer.from([value >> 8, value & 255])
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}
const u64 = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}
const optionReply = (option: number, type: number, data = Buffer.alloc(0)) =>
  Buffer.concat([Buffer.from('0003e889045565a9', 'hex'), u32(option), u32(type), u32(data.length), data])
const chunk = (flags: number, type: number, cookie: number, data: Buffer, length = data.length) =>
  Buffer.concat([u32(0x668e_33ef), u16(flags), u16(type), u64(cookie), u32(length), data])

const exportInfo = Buffer.concat([u16(0), u64(16 * MiB), u16(1)])
const goodHandshake = Buffer.concat([
  optionReply(8, 1),
  optionReply(10, 4, Buffer.concat([u32(5), Buffer.from('base:allocation')])),
  optionReply(10, 1),
  optionReply(7, 3, exportInfo),
  optionReply(7, 1),
])
const greeting = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(3)])

async function against(
  hello: Buffer,
  answer: Buffer | ((socket: Socket) => void),
  ask: (client: NbdClient) => Promise<unknown>,
): Promise<unknown> {
  const path = await mkdtemp(join(tmpdir(), 'hako-nbd-'))
  const socketPath = join(path, 'nbd.sock')
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.write(hello)
    // All options are answered before they are asked; the request follows them.
    let received = Buffer.alloc(0)
    let hasAnswered = false
    socket.on('data', (part: Buffer) => {
      received = Buffer.concat([received, part])
      if (hasAnswered || !received.includes(u32(0x2560_9513))) return
      hasAnswered = true
      if (typeof answer === 'function') answer(socket)
      else socket.write(answer)
    })
  })
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  try {
    await using client = await NbdClient.connect(socketPath, { timeoutMs: 20_000 })
    return await ask(client).catch((error: unknown) => error)
  } catch (error) {
    return error
  } finally {
    server.close()
    await rm(path, { recursive: true })
  }
}

const read = (client: NbdClient) => client.read(4_096, Buffer.alloc(4_096))
const status = (client: NbdClient) => all(client.extents())
const data = (offset: number, length: number) => Buffer.concat([u64(offset), Buffer.alloc(length, 9)])

const hostile: readonly (readonly [string, Buffer, (client: NbdClient) => Promise<unknown>])[] = [
  ['a reply without magic', Buffer.alloc(64, 3), read],
  ['an answer to a question nobody asked', chunk(1, 1, 99, data(4_096, 4_096)), read],
  ['data before the part that was asked', chunk(1, 1, 1, data(0, 4_096)), read],
  ['data beyond the part that was asked', chunk(1, 1, 1, data(8_192, 512)), read],
  ['more data than was asked', chunk(1, 1, 1, data(4_096, 8_192)), read],
  ['less data than was asked', chunk(1, 1, 1, data(4_096, 512)), read],
  ['the same data twice', Buffer.concat([chunk(0, 1, 1, data(4_096, 4_096)), chunk(1, 1, 1, data(4_096, 512))]), read],
  ['four gigabytes of data', chunk(1, 1, 1, data(4_096, 16), 0xffff_ffff), read],
  ['a hole of four gigabytes', chunk(1, 2, 1, Buffer.concat([u64(4_096), u32(0xffff_ffff)])), read],
  ['an error of four gigabytes', chunk(1, 0x8001, 1, Buffer.alloc(6), 0xffff_ffff), read],
  ['an unknown kind of reply', chunk(1, 77, 1, Buffer.alloc(8)), read],
  ['block status instead of data', chunk(1, 5, 1, Buffer.alloc(12)), read],
  ['an old reply to a read', Buffer.concat([u32(0x6744_6698), u32(0), u64(1), Buffer.alloc(4_096)]), read],
  ['no extents', chunk(1, 0, 1, Buffer.alloc(0)), status],
  ['an extent of no length', chunk(1, 5, 1, Buffer.concat([u32(5), u32(0), u32(0)])), status],
  ['extents of another context', chunk(1, 5, 1, Buffer.concat([u32(6), u32(512), u32(0)])), status],
  ['extents of odd form', chunk(1, 5, 1, Buffer.concat([u32(5), u32(512), u32(0), u32(1)])), status],
  ['gigabytes of extents', chunk(1, 5, 1, u32(5), 0xf000_0004), status],
]
for (const [what, answer, ask] of hostile) {
  test(`a server that sends ${what} is refused at once`, async () => {
    const outcome = await against(Buffer.concat([greeting, goodHandshake]), answer, ask)
    assert.ok(isFault(outcome, 'failed') && /breaks the protocol/.test(outcome.message), String(outcome))
  })
}

test('an error of the server is told in its own words, made fit for a terminal', async () => {
  const error = Buffer.concat([u32(5), u16(9), Buffer.from('bad\u001b[31mx')])
  const outcome = await against(Buffer.concat([greeting, goodHandshake]), chunk(1, 0x8001, 1, error), read)
  assert.ok(isFault(outcome, 'failed'))
  assert.match(outcome.message, /refused read of 4096 bytes at 4096: input\/output error \(bad\?\[31mx\)/)
})

for (const [what, hello] of [
  ['does not greet', Buffer.alloc(64, 65)],
  ['greets as of old', Buffer.concat([Buffer.from('NBDMAGIC'), Buffer.alloc(200)])],
  ['answers another option', Buffer.concat([greeting, optionReply(9, 1)])],
  ['answers an option with a gigabyte', Buffer.concat([greeting, optionReply(8, 3).subarray(0, 16), u32(1 << 30)])],
  [
    'has an export larger than any disk',
    Buffer.concat([
      greeting,
      optionReply(8, 0x8000_0001),
      optionReply(7, 3, Buffer.concat([u16(0), Buffer.alloc(8, 255), u16(1)])),
      optionReply(7, 1),
    ]),
  ],
] as const) {
  test(`a server that ${what} is refused`, async () => {
    const outcome = await against(hello, Buffer.alloc(0), read)
    assert.ok(isFault(outcome, 'failed') && /breaks the protocol/.test(outcome.message), String(outcome))
  })
}

test('a server that hangs up in the middle of a reply ends the wait', async () => {
  const outcome = await against(
    Buffer.concat([greeting, goodHandshake]),
    (socket) => socket.end(chunk(1, 1, 1, data(4_096, 4_096)).subarray(0, 1_000)),
    read,
  )
  assert.ok(isFault(outcome, 'unavailable'), String(outcome))
})

test('however replies are cut and mixed, each read gets its own', async () => {
  const contents = [randomBytes(4_096), randomBytes(10_000), Buffer.alloc(600)]
  const part = (flags: number, read: number, from: number, to: number) =>
    chunk(flags, 1, read + 1, Buffer.concat([u64(read * 65_536 + from), contents[read]?.subarray(from, to) ?? u16(0)]))
  // Short replies stand before others, so that whoever reads ahead has something of the next.
  const stream = Buffer.concat([
    part(0, 1, 100, 10_000),
    part(0, 0, 0, 4_000),
    part(0, 1, 0, 100),
    chunk(1, 0, 2, Buffer.alloc(0)),
    chunk(0, 2, 3, Buffer.concat([u64(2 * 65_536), u32(599)])),
    part(1, 0, 4_000, 4_096),
    part(0, 2, 599, 600),
    chunk(1, 0, 3, Buffer.alloc(0)),
  ])
  for (let round = 0; round < 30; round += 1) {
    const outcome = await against(
      Buffer.concat([greeting, goodHandshake]),
      (socket) => {
        const most = [1, 7, 30, 300, 20_000][round % 5] ?? 1
        const send = (at: number): void => {
          if (at >= stream.length) return
          const end = at + 1 + randomInt(most)
          socket.write(stream.subarray(at, end), () => setImmediate(() => send(end)))
        }
        send(0)
      },
      async (client) => {
        const into = contents.map(({ length }) => Buffer.alloc(length, 1))
        await Promise.all(into.map((buffer, number) => client.read(number * 65_536, buffer)))
        return into
      },
    )
    assert.ok(Array.isArray(outcome), String(outcome))
    for (const [number, content] of contents.entries()) assert.ok(content.equals(outcome[number] as Buffer))
  }
})

test("what a server sends after its end is in nobody's buffer", async () => {
  const into = Buffer.alloc(MiB)
  const answer = chunk(1, 1, 1, Buffer.concat([u64(0), Buffer.alloc(MiB, 9)]))
  const outcome = await against(
    Buffer.concat([greeting, goodHandshake]),
    (socket) => {
      // All but the end of what was asked, and the rest when nobody waits any more.
      socket.write(answer.subarray(0, 100_000))
      setTimeout(() => socket.write(answer.subarray(100_000)), 100)
    },
    async (client) => {
      const reading = client.read(0, into)
      while (into[50_000] !== 9) await new Promise((resolve) => setImmediate(resolve))
      await client[Symbol.asyncDispose]()
      return reading
    },
  )
  assert.ok(isFault(outcome, 'failed') && /was closed/.test(outcome.message), String(outcome))
  const before = Buffer.from(into)
  await new Promise((resolve) => setTimeout(resolve, 300))
  assert.ok(into.equals(before))
})

test('a server without structured replies is read in the old form, all of it as data', async () => {
  const old = Buffer.concat([greeting, optionReply(8, 0x8000_0001), optionReply(7, 3, exportInfo), optionReply(7, 1)])
  const reply = Buffer.concat([u32(0x6744_6698), u32(0), u64(1), Buffer.alloc(4_096, 6)])
  const outcome = await against(old, reply, async (client) => {
    const into = Buffer.alloc(4_096)
    await client.read(4_096, into)
    assert.ok(into.equals(Buffer.alloc(4_096, 6)))
    return all(client.extents())
  })
  assert.deepEqual(outcome, [{ offset: 0, length: 16 * MiB, isZero: false }])
})

test('an image opened through a server of its own takes what is written and leaves no process behind', () =>
  inDirectory(async (path) => {
    const [image, socket] = [join(path, 'disk.qcow2'), join(path, 'nbd.sock')]
    await host.run(['qemu-img', 'create', '-f', 'qcow2', image, '8M'])
    const bytes = randomBytes(256 * KiB)
    {
      await using opened = await openImage(host, { path: image, format: 'qcow2', isReadOnly: false, socket })
      await opened.client.write(MiB, bytes)
      await opened.client.flush()
    }
    {
      await using opened = await openImage(host, { path: image, format: 'qcow2', isReadOnly: true, socket })
      const into = Buffer.alloc(bytes.length)
      await opened.client.read(MiB, into)
      assert.ok(into.equals(bytes))
    }
    const { stdout } = await host.run(['sh', '-c', `grep -l '${image}' /proc/[0-9]*/cmdline 2>/dev/null || true`])
    const mine = stdout.split('\n').filter((line) => line !== '' && !line.includes(`/${process.pid}/`))
    for (const line of mine) assert.doesNotMatch(await readFile(line, 'latin1').catch(() => ''), /qemu-nbd/)
    await assert.rejects(
      openImage(host, { path: join(path, 'no'), format: 'raw', isReadOnly: true, socket }),
      /qemu-nbd|setpriv/,
    )
  }))
