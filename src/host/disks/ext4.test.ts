import assert from 'node:assert/strict'
import { copyFile, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { machine } from '../exec.ts'
import { checkExt4, ext4BytesOf, hasDirtyJournal, makeExt4 } from './ext4.ts'
import { mountLoop } from './mount.ts'

test('an image that lost its power is known by its journal, and clean again after a check', async () => {
  const host = machine()
  const folder = await mkdtemp(join(tmpdir(), 'hako-ext4-'))
  const [image, torn, target] = [join(folder, 'image'), join(folder, 'torn'), join(folder, 'mounted')]
  try {
    await writeFile(image, '')
    await truncate(image, 32 * MiB)
    assert.equal(await ext4BytesOf(image), undefined)
    await makeExt4(host, image, 0)
    assert.equal(await ext4BytesOf(image), 32 * MiB)
    assert.equal(await hasDirtyJournal(image), false)
    await mkdir(target)
    await mountLoop(host, { image, target, options: ['rw'] })
    await writeFile(join(target, 'said'), 'before the power went')
    await host.run(['sync', '--file-system', target])
    // As it lies on the disk at this moment, and as nobody will ever unmount it.
    await copyFile(image, torn)
    await host.run(['umount', target])
    assert.equal(await hasDirtyJournal(torn), true)
    await assert.rejects(mountLoop(host, { image: torn, target, options: ['ro'] }))
    await checkExt4(host, torn)
    assert.equal(await hasDirtyJournal(torn), false)
    await mountLoop(host, { image: torn, target, options: ['ro'] })
    const { stdout } = await host.run(['cat', join(target, 'said')])
    assert.equal(stdout, 'before the power went')
  } finally {
    await host.run(['umount', target], { okCodes: [0, 32] })
    await rm(folder, { recursive: true, force: true })
  }
})
