import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { machine } from '../exec.ts'
import { exportDisk } from './nbd-export.ts'
import { NbdClient } from './nbd.ts'
import { command, option, optionRequest, request } from './nbd-wire.ts'

const uid = 1_000_000_123

test('what is served is what is read, by a client of ours and by QEMU’s own tools', async () => {
  await using scope = new AsyncDisposableStack()
  const place = await mkdtemp(join(tmpdir(), 'hako-export-'))
  scope.defer(() => rm(place, { recursive: true }))
  const content = randomBytes(3 * 1024 * 1024 + 512)
  const socket = join(place, 'disk.sock')
  const errors: unknown[] = []
  const served = await exportDisk({
    socket,
    uid,
    disk: {
      sizeBytes: content.length,
      async read(offset, into) {
        if (offset === 4096) throw new Error('a chunk is damaged')
        into.set(content.subarray(offset, offset + into.length))
      },
    },
    onError: (cause) => errors.push(cause),
  })
  assert.equal((await stat(socket)).uid, uid)
  const copy = join(place, 'copy.raw')
  await machine().run(['qemu-img', 'convert', '-f', 'raw', '-O', 'raw', `nbd+unix:///?socket=${socket}`, copy])
  assert.ok((await readFile(copy)).equals(content))

  {
    await using client = await NbdClient.connect(socket)
    assert.equal(client.sizeBytes, content.length)
    const part = Buffer.alloc(1000)
    await client.read(12_345, part)
    assert.ok(part.equals(content.subarray(12_345, 13_345)))
    await assert.rejects(client.read(4096, Buffer.alloc(512)), /input\/output error/)
    assert.equal(errors.length, 1)
    // The connection goes on after that.
    await client.read(content.length - 512, part.subarray(0, 512))
    assert.ok(part.subarray(0, 512).equals(content.subarray(-512)))
  }
  await using waiting = await NbdClient.connect(socket)
  await served[Symbol.asyncDispose]()
  await assert.rejects(waiting.read(0, Buffer.alloc(512)))
  await assert.rejects(stat(socket), { code: 'ENOENT' })
})

test('who does not keep to the protocol, or takes no answers, costs the others nothing', async () => {
  await using scope = new AsyncDisposableStack()
  const place = await mkdtemp(join(tmpdir(), 'hako-export-'))
  scope.defer(() => rm(place, { recursive: true }))
  const socket = join(place, 'disk.sock')
  let reads = 0
  const errors: unknown[] = []
  const disk = {
    sizeBytes: 64 * 1024 * 1024,
    async read(_offset: number, into: Uint8Array) {
      reads += 1
      into.fill(7)
    },
    statusOf: async () => [{ length: 64 * 1024 * 1024, isZero: false }],
  }
  scope.use(await exportDisk({ socket, uid, disk, onError: (cause) => errors.push(cause) }))
  const go = Buffer.concat([Buffer.from([0, 0, 0, 1]), optionRequest(option.go, Buffer.alloc(6))])
  const greedy = connect(socket)
  greedy.on('error', () => {})
  await once(greedy, 'readable')
  greedy.write(go)
  // A thousand times four megabytes, and nobody reads them.
  for (let cookie = 0; cookie < 1_000; cookie += 1) greedy.write(request(command.read, cookie, 0, 4 * 1024 * 1024))
  const bad = {
    noise: Buffer.alloc(64, 0xff),
    'an option of a gigabyte': Buffer.concat([Buffer.alloc(4), optionHead(option.go, 1024 ** 3)]),
    'options without end': Buffer.concat([
      Buffer.alloc(4),
      ...Array.from({ length: 100 }, () => optionRequest(99, Buffer.alloc(0))),
    ]),
    'a write': Buffer.concat([go, request(command.write, 1, 0, 512), Buffer.alloc(512)]),
    'no request': Buffer.concat([go, Buffer.alloc(28)]),
  }
  for (const [what, bytes] of Object.entries(bad)) {
    const client = connect(socket)
    client.on('error', () => {})
    client.resume()
    client.write(bytes)
    await once(client, 'close', { signal: AbortSignal.timeout(5_000) }).catch(() =>
      assert.fail(`${what} is borne with`),
    )
  }
  await using client = await NbdClient.connect(socket)
  for (const [offset, length] of [
    [disk.sizeBytes, 512],
    [Number.MAX_SAFE_INTEGER, 512],
  ] as const) {
    await assert.rejects(client.read(offset, Buffer.alloc(length)))
  }
  const part = Buffer.alloc(512)
  await client.read(disk.sizeBytes - 512, part)
  assert.ok(part.equals(Buffer.alloc(512, 7)))
  assert.ok(reads <= 16, `${reads} reads for a client that takes nothing`)
  greedy.destroy()
})

function optionHead(number: number, length: number): Buffer {
  const head = optionRequest(number, Buffer.alloc(0))
  head.writeUInt32BE(length, 12)
  return head
}
