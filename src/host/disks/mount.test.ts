import assert from 'node:assert/strict'
import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '../exec.ts'
import { mountImage, mountPoints, parseMountPoints, unmount, unmountBelow } from './mount.ts'

const host = machine()

test('a mount point with a blank in its name is read', () => {
  const text =
    '36 35 98:0 / / rw - ext4 /dev/vda rw\n37 36 7:0 / /mnt/a\\040b rw,nosuid shared:1 - ext4 /dev/loop0 rw\n'
  assert.deepEqual(parseMountPoints(text), ['/', '/mnt/a b'])
})

async function withImage(use: (directory: string, image: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'hk-mount-'))
  try {
    const image = join(directory, 'disk.img')
    await writeFile(image, '')
    await truncate(image, 16 << 20)
    await host.run(['mkfs.ext4', '-q', '-F', image])
    await use(directory, image)
  } finally {
    await unmountBelow(host, directory)
    await rm(directory, { recursive: true })
  }
}

const loopsOf = async (image: string) => (await host.run(['losetup', '--associated', image])).stdout

test('what is written through a mount is in the image, and the scope leaves no mount and no loop device', () =>
  withImage(async (directory, image) => {
    const target = join(directory, 'a b')
    {
      await using mounted = await mountImage(host, { image, target })
      await writeFile(join(mounted.target, 'note'), 'kept')
      assert.ok((await mountPoints()).includes(target))
    }
    assert.equal((await mountPoints()).includes(target), false)
    assert.equal(await loopsOf(image), '')
    await using again = await mountImage(host, { image, target, isReadOnly: true, options: ['noload'] })
    assert.equal(await readFile(join(again.target, 'note'), 'utf8'), 'kept')
    await assert.rejects(writeFile(join(again.target, 'note'), 'x'), /EROFS/)
  }))

test('a partition is mounted by its place in the image', () =>
  withImage(async (directory, image) => {
    const whole = join(directory, 'whole.img')
    const file = await open(whole, 'w')
    await file.write(await readFile(image), 0, undefined, 1 << 20)
    await file.close()
    const target = join(directory, 'part')
    await using mounted = await mountImage(host, { image: whole, target, offsetBytes: 1 << 20, sizeBytes: 16 << 20 })
    await writeFile(join(mounted.target, 'x'), 'x')
  }))

test('an image without a file system is refused and leaves no loop device', () =>
  withImage(async (directory, image) => {
    await truncate(image, 0)
    await truncate(image, 1 << 20)
    await assert.rejects(mountImage(host, { image, target: join(directory, 'x') }), (error) => isFault(error, 'failed'))
    assert.equal(await loopsOf(image), '')
  }))

test('mounts inside mounts are found and unmounted, innermost first', () =>
  withImage(async (directory, image) => {
    const outer = join(directory, 'outer')
    await mountImage(host, { image, target: outer })
    const second = join(directory, 'second.img')
    await writeFile(second, await readFile(image))
    await mountImage(host, { image: second, target: join(outer, 'inner') })
    await unmountBelow(host, outer)
    await unmount(host, outer)
    assert.deepEqual(
      (await mountPoints()).filter((path) => path.startsWith(directory)),
      [],
    )
  }))
