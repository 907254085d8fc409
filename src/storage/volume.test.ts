import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import type { Fault } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { checkFormat } from '#base/schema/formats.ts'
import { layoutAt, volumePath } from './plugins/dir-paths.ts'
import {
  complaintAboutFile,
  contentOf,
  contentTypes,
  formatOf,
  type ImageName,
  nextImageName,
  ownerOf,
  parseVolumeId,
  parseVolumeName,
  plainFileName,
  printVolumeName,
  volumeAt,
  volumeId,
  wishedImageName,
} from './volume.ts'

const good = [
  ['100/vm-100-disk-0.qcow2', 'images', 'qcow2', 100],
  ['100/vm-100-cloudinit.raw', 'images', 'raw', 100],
  ['9000/base-9000-disk-1.raw', 'images', 'raw', 9000],
  ['iso/debian-13.1.0-amd64-netinst.iso', 'iso', 'iso', undefined],
  ['iso/virtio.IMG', 'iso', 'iso', undefined],
  ['vztmpl/debian-13-standard_13.1-2_amd64.tar.zst', 'vztmpl', 'tzst', undefined],
  ['vztmpl/x.tar', 'vztmpl', 'tar', undefined],
  ['snippets/user-data', 'snippets', 'snippet', undefined],
  ['import/cloud.qcow2', 'import', 'qcow2', undefined],
  ['import/web.ova/web-disk1.vmdk', 'import', 'ova+vmdk', undefined],
  ['backup/vzdump-qemu-100-2026_01_31-12_00_00.vma.zst', 'backup', 'vma.zst', 100],
  ['backup/vzdump-lxc-101-2026_01_31-12_00_00.tgz', 'backup', 'tgz', 101],
  ['backup/vm/100/2026-11-20T10:00:00Z', 'backup', 'hako-vm', 100],
  ['backup/ct/101/2026-11-20T10:00:00Z', 'backup', 'hako-ct', 101],
] as const

suite('names of volumes', () => {
  for (const [text, content, format, owner] of good) {
    test(`${text} is ${content} of form ${format}`, () => {
      const name = parseVolumeName(text)
      assert.equal(printVolumeName(name), text)
      assert.deepEqual([contentOf(name), formatOf(name), ownerOf(name)], [content, format, owner])
      assert.deepEqual(parseVolumeId(volumeId('local', name)), { storage: 'local', name })
    })
  }

  const bad = [
    '',
    '/',
    '100/',
    '100/vm-101-disk-0.raw',
    '100/vm-100-disk-0',
    '100/vm-100-disk-0.vmdk',
    '99/vm-99-disk-0.raw',
    '0100/vm-0100-disk-0.raw',
    '100/../101/vm-101-disk-0.raw',
    'import/web.ova/../x.vmdk',
    'import/web.ova/.vmdk',
    'import/web.ova/x.iso',
    'import/web.tar/x.vmdk',
    'import/web.ova/x/y.vmdk',
    'iso/web.ova/x.vmdk',
    '100/vm-100-../../x.raw',
    'iso/../../etc/shadow.iso',
    'iso/.hidden.iso',
    'iso/a/b.iso',
    'iso/a.exe',
    'iso/a b.iso',
    'iso/a\0.iso',
    'iso/-a.iso',
    'snippets/..',
    'snippets/.',
    'snippets/',
    'images/x.raw',
    'backup/vm/100/../../x',
    'backup/vm/100/2026-11-20T10:00:00+01:00',
    'backup/passwd',
    '__proto__/x',
  ]
  for (const text of bad) {
    test(`${JSON.stringify(text)} names no volume`, () => {
      assert.throws(
        () => parseVolumeName(text),
        (fault: Fault) => fault.kind === 'invalid',
      )
    })
  }

  test('whatever the text, it is refused or it is printed back and stays below the folder', () => {
    const word = fc.constantFrom(
      '..',
      '.',
      '/',
      '100',
      'vm-100-',
      'iso',
      '.iso',
      '.raw',
      'import',
      'backup',
      '\\',
      '\0',
    )
    const hostile = fc
      .array(fc.oneof(word, fc.string({ maxLength: 8 })), { maxLength: 8 })
      .map((parts) => parts.join(''))
    const nearly = fc
      .constantFrom(...good.map(([text]) => text))
      .chain((text) =>
        fc
          .tuple(fc.nat(text.length), fc.oneof(word, fc.string({ maxLength: 3 })))
          .map(([at, put]) => text.slice(0, at) + put + text.slice(at)),
      )
    const seen = { parsed: 0 }
    fc.assert(
      fc.property(fc.oneof(hostile, nearly), (text) => {
        let name
        try {
          name = parseVolumeName(text)
        } catch (error) {
          assert.equal((error as Fault).kind, 'invalid')
          return
        }
        seen.parsed += 1
        assert.equal(printVolumeName(name), text)
        asVolumeId(`local:${text}`)
        if (name.kind === 'restore-point' || name.kind === 'member') return
        const path = volumePath(layoutAt('/srv/local'), name)
        assert.equal(resolve(path), path)
        assert.match(path, /^\/srv\/local\/(images\/\d+|template\/(iso|cache)|snippets|import|dump)\/[^/.][^/]*$/)
      }),
      { numRuns: 5_000 },
    )
    assert.ok(seen.parsed > 100, `only ${seen.parsed} texts were names`)
  })

  test("whatever a client calls its file, what remains of the name is a name or is refused by its content's rule", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.string({ unit: 'binary' })), (text) => {
        const file = plainFileName(`${text}.iso`).slice(-255)
        if (complaintAboutFile('iso', file) !== undefined) return
        assert.equal(printVolumeName(parseVolumeName(`iso/${file}`)), `iso/${file}`)
      }),
    )
    assert.equal(plainFileName(String.raw`C:\Users\me\my disk.iso`), 'my_disk.iso')
    assert.equal(plainFileName('../../etc/cron.d/x.iso'), 'x.iso')
    assert.equal(plainFileName('.hidden.iso'), '_hidden.iso')
  })
})

test('a URL names a volume with or without its storage, but not that of another', () => {
  assert.equal(volumeAt('local', 'iso/a.iso'), 'local:iso/a.iso')
  assert.equal(volumeAt('local', 'local:iso/a.iso'), 'local:iso/a.iso')
  assert.equal(volumeAt('local', 'backup/vm/100/2026-11-20T10:00:00Z'), 'local:backup/vm/100/2026-11-20T10:00:00Z')
  assert.throws(() => volumeAt('local', 'other:iso/a.iso'), /verification failed/)
})

suite('names of new images', () => {
  const vmid = asVmid(100)
  const image = (base: string, format: 'raw' | 'qcow2' = 'raw'): ImageName => ({ kind: 'image', vmid, base, format })

  test('the first number free in any format is taken', () => {
    assert.equal(nextImageName(vmid, 'raw', []).base, 'vm-100-disk-0')
    const taken = [
      image('vm-100-disk-0', 'qcow2'),
      image('base-100-disk-1'),
      image('vm-100-disk-3'),
      image('vm-100-cloudinit'),
    ]
    assert.equal(nextImageName(vmid, 'raw', taken).base, 'vm-100-disk-2')
  })

  test('a wish may come with or without folder and ending', () => {
    for (const wish of ['vm-100-disk-5', 'vm-100-disk-5.raw', '100/vm-100-disk-5', '100/vm-100-disk-5.raw']) {
      assert.deepEqual(wishedImageName(vmid, wish, 'raw'), image('vm-100-disk-5'))
    }
  })

  test('a wish for a disk of another guest, another format or another folder is refused', () => {
    for (const wish of [
      'vm-101-disk-0',
      'disk-0',
      '101/vm-101-disk-0',
      '../vm-100-disk-0',
      'vm-100-disk-0.qcow2',
      'vm-100-a/b',
      '',
    ]) {
      assert.throws(
        () => wishedImageName(vmid, wish, 'raw'),
        (fault: Fault) => fault.kind === 'invalid',
        wish,
      )
    }
  })
})

test('every content type is one the wire format knows', () => {
  for (const content of contentTypes) assert.equal(checkFormat('pve-storage-content', content), undefined)
})
