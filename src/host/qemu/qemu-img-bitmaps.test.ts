import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { serveImage } from '../../../test/fixtures/nbd-server.ts'
import { machine } from '../exec.ts'
import { NbdClient } from '../nbd/nbd.ts'
import { createImage, growImage } from './qemu-img.ts'
import { addStoredBitmap, removeAllBitmaps, removeStoredBitmaps, storedBitmaps } from './qemu-img-bitmaps.ts'
import { changeSnapshot } from './qemu-img-layers.ts'

const host = machine()

test('bitmaps are stored in an image, broken by a crash, and in the way of nothing once they are removed', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hako-bitmaps-'))
  try {
    const image = { path: join(directory, 'disk.qcow2'), format: 'qcow2' } as const
    await createImage(host, { ...image, sizeBytes: 8 * MiB })
    assert.deepEqual(await storedBitmaps(host, image), [])
    for (const name of ['one/a:b', 'two']) await addStoredBitmap(host, image, name)
    assert.deepEqual(await storedBitmaps(host, image), [
      { name: 'one/a:b', isWhole: true },
      { name: 'two', isWhole: true },
    ])
    await removeStoredBitmaps(host, image, ['two'])
    {
      // Killed at the end. It listens before it has opened the image; whoever knows its size has waited for that.
      const socket = join(directory, 'nbd.sock')
      await using _server = await serveImage(image.path, 'qcow2', socket)
      await using client = await NbdClient.connect(socket)
      assert.equal(client.sizeBytes, 8 * MiB)
    }
    assert.deepEqual(await storedBitmaps(host, image), [{ name: 'one/a:b', isWhole: false }])
    await changeSnapshot(host, 'take', [image], 'before')
    await assert.rejects(growImage(host, image.path, 'qcow2', 16 * MiB), /delete this bitmap/)
    await assert.rejects(changeSnapshot(host, 'roll-back', [image], 'before'), /dirty bitmaps/)
    await removeAllBitmaps(host, image)
    await changeSnapshot(host, 'roll-back', [image], 'before')
    await growImage(host, image.path, 'qcow2', 16 * MiB)
    await removeAllBitmaps(host, { path: join(directory, 'not looked at'), format: 'raw' })
  } finally {
    await rm(directory, { recursive: true })
  }
})
