import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { machine } from './exec.ts'
import { exportDisk } from './nbd-export.ts'
import { NbdClient } from './nbd.ts'

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
