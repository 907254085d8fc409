import assert from 'node:assert/strict'
import { stat } from 'node:fs/promises'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { asVmid } from '#base/ids.ts'
import { smallStorage } from './small-storage.ts'

test('a blank image takes no room, whatever the storage lays out beforehand, and is laid out by who opens it', async () => {
  await using lab = await smallStorage()
  await lab.service.update('local', { set: { preallocation: 'full' } })
  const image = { storage: 'local', vmid: asVmid(100), sizeBytes: 64 * MiB, format: 'qcow2' } as const
  const laidOut = await lab.service.location(await lab.service.allocate(image))
  const { volid: blank, path } = await lab.service.allocateBlank(image)
  assert.ok((await stat(laidOut.path)).blocks * 512 >= 64 * MiB)
  assert.equal((await stat(path)).size, 0)
  // Whoever cleans up after one who never laid it out finds it.
  assert.ok((await lab.service.content('local', { vmid: asVmid(100) })).some(({ volid }) => volid === blank))
  await lab.service.free(blank)
  await assert.rejects(stat(path), { code: 'ENOENT' })
})
