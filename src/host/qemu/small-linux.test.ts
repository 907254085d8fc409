/** Reading what the distribution's tools say about the parts of the guest. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { kernelNamedIn, librariesIn, modulesIn } from './small-linux.ts'

test('the kernel is the one the meta package depends on', () => {
  const reply = 'linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Suggests: linux-doc\n'
  assert.equal(kernelNamedIn(reply), 'linux-image-6.1.0-56-cloud-amd64')
  assert.equal(kernelNamedIn(''), undefined)
  assert.equal(kernelNamedIn('linux-image-cloud-amd64\n  Depends: <linux-image>\n'), undefined)
})

test('modules come in the order they must be loaded; built-in ones need no file', () => {
  const reply =
    'insmod /k/lib/modules/6.1/kernel/drivers/virtio/virtio_ring.ko \nbuiltin ext4\ninsmod /k/lib/modules/6.1/kernel/drivers/virtio/virtio.ko \n'
  assert.deepEqual(modulesIn(reply), [
    '/k/lib/modules/6.1/kernel/drivers/virtio/virtio_ring.ko',
    '/k/lib/modules/6.1/kernel/drivers/virtio/virtio.ko',
  ])
})

test('libraries are those with a file, the loader among them', () => {
  const reply = [
    '\tlinux-vdso.so.1 (0x00007fa635dd4000)',
    '\tlibudev.so.1 => /lib/x86_64-linux-gnu/libudev.so.1 (0x00007fa635c9d000)',
    '\t/lib64/ld-linux-x86-64.so.2 (0x00007fa635dd6000)',
    '',
  ].join('\n')
  assert.deepEqual(librariesIn(reply), ['/lib/x86_64-linux-gnu/libudev.so.1', '/lib64/ld-linux-x86-64.so.2'])
})

test('a library that is not there is named, with what to do', () => {
  assert.throws(() => librariesIn('\tliburing.so.2 => not found\n'), {
    kind: 'missing',
    message: /'liburing\.so\.2'/,
    remedy: /qemu-system-x86/,
  })
})
