import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { KiB, MiB } from '#base/bytes.ts'
import { asVmid } from '#base/ids.ts'
import { smallStorage } from './small-storage.ts'

const run = promisify(execFile)

test('an image of chosen clusters has them, and takes no room beforehand where others do', async () => {
  await using lab = await smallStorage()
  await lab.service.update('local', { set: { preallocation: 'full' } })
  const image = { storage: 'local', vmid: asVmid(100), sizeBytes: 64 * MiB, format: 'qcow2' } as const
  const laidOut = await lab.service.location(await lab.service.allocate(image))
  const thin = await lab.service.location(await lab.service.allocate({ ...image, clusterBytes: 128 * KiB }))
  assert.ok((await stat(laidOut.path)).blocks * 512 >= 64 * MiB)
  assert.ok((await stat(thin.path)).blocks * 512 <= MiB)
  const { stdout } = await run('qemu-img', ['info', '--output=json', thin.path])
  assert.equal((JSON.parse(stdout) as Record<string, unknown>)['cluster-size'], 128 * KiB)
})
