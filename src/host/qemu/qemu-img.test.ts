import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { KiB, MiB } from '#base/bytes.ts'
import type { Fault } from '#base/fault.ts'
import { machine } from '../exec.ts'
import {
  checkImage,
  convertImage,
  createImage,
  growImage,
  imageInfo,
  mapImage,
  measureImage,
  parseImageInfo,
  progressIn,
} from './qemu-img.ts'

const run = promisify(execFile)
const host = machine()

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'hako-img-'))
  t.after(() => rm(path, { recursive: true }))
  return path
}

suite('qemu-img', () => {
  for (const format of ['raw', 'qcow2'] as const) {
    test(`makes, describes and grows a ${format} image`, async (t) => {
      const path = join(await folder(t), `disk.${format}`)
      await createImage(host, { path, format, sizeBytes: MiB })
      await growImage(host, path, format, 3 * MiB)
      const info = await imageInfo(host, { path, format })
      assert.deepEqual([info.format, info.virtualSizeBytes, info.isCorrupt], [format, 3 * MiB, false])
      await assert.rejects(growImage(host, path, format, MiB), /qemu-img failed/)
    })
  }

  test('takes a raw disk literally, however much it looks like an image', async (t) => {
    const at = await folder(t)
    const [disguised, copy] = [join(at, 'disguised.raw'), join(at, 'copy.raw')]
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', '/etc/shadow', '-F', 'raw', disguised, '1M'])
    const before = await readFile(disguised)
    await createImage(host, { path: copy, format: 'raw', sizeBytes: Math.ceil(before.length / 512) * 512 })
    const [source, target] = [
      { path: disguised, format: 'raw' },
      { path: copy, format: 'raw' },
    ] as const
    await convertImage(host, { source, target, isTargetZero: true })
    assert.ok((await readFile(copy)).subarray(0, before.length).equals(before))
    assert.equal(
      (await imageInfo(host, { path: disguised, format: 'raw' })).virtualSizeBytes,
      Math.ceil(before.length / 512) * 512,
    )
  })

  test('reads no backing file, even when one appears after the check', async (t) => {
    const at = await folder(t)
    const [secret, late, copy] = [join(at, 'secret'), join(at, 'late.qcow2'), join(at, 'copy.raw')]
    await writeFile(secret, Buffer.alloc(MiB, 'S'))
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', secret, '-F', 'raw', late])
    await createImage(host, { path: copy, format: 'raw', sizeBytes: MiB })
    const [source, target] = [
      { path: late, format: 'qcow2' },
      { path: copy, format: 'raw' },
    ] as const
    await convertImage(host, { source, target, isTargetZero: true })
    assert.ok((await readFile(copy)).equals(Buffer.alloc(MiB)))
  })

  test('copies between formats and reports how far it is', async (t) => {
    const at = await folder(t)
    const [from, to] = [join(at, 'from.raw'), join(at, 'to.qcow2')]
    await run('dd', ['if=/dev/urandom', `of=${from}`, 'bs=1M', 'count=8'])
    await createImage(host, { path: to, format: 'qcow2', sizeBytes: 8 * MiB })
    const reports: number[] = []
    const [source, target] = [
      { path: from, format: 'raw' },
      { path: to, format: 'qcow2' },
    ] as const
    await convertImage(host, { source, target, isTargetZero: true, onProgress: (fraction) => reports.push(fraction) })
    assert.equal(reports.at(-1), 1)
    await run('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', from, to])
  })

  test('can be interrupted', async (t) => {
    const at = await folder(t)
    const path = join(at, 'disk.raw')
    await createImage(host, { path, format: 'raw', sizeBytes: MiB })
    const [source, target] = [
      { path, format: 'raw' },
      { path: join(at, 'copy.raw'), format: 'raw' },
    ] as const
    const signal = AbortSignal.abort()
    await assert.rejects(
      convertImage(host, { source, target, isTargetZero: true, signal }),
      (fault: Fault) => fault.kind === 'aborted',
    )
  })

  test('tells data from holes, and how much a copy will take', async (t) => {
    const path = join(await folder(t), 'disk.raw')
    await createImage(host, { path, format: 'raw', sizeBytes: 64 * MiB })
    await run('qemu-io', ['-f', 'raw', '-c', 'write -P 7 1M 64k', path])
    const extents = await mapImage(host, path, 'raw', { offset: 0, length: 64 * MiB })
    assert.equal(
      extents.reduce((sum, { length }) => sum + length, 0),
      64 * MiB,
    )
    // qemu-img writes the first block of a new raw file itself.
    const data = extents.filter(({ isZero, offset }) => !isZero && offset > 0)
    assert.deepEqual(data, [{ offset: MiB, length: 64 * KiB, isZero: false, isData: true }])
    const needed = await measureImage(host, { path, format: 'raw' })
    assert.ok(needed >= 64 * KiB && needed < 2 * MiB, `${needed} bytes for 64 KiB of data`)
  })

  test('finds damage in the structure of an image', async (t) => {
    const path = join(await folder(t), 'disk.qcow2')
    await createImage(host, { path, format: 'qcow2', sizeBytes: MiB })
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 0 64k', path])
    assert.deepEqual(await checkImage(host, path), { state: 'sound', leakedClusters: 0 })
    const { size } = await stat(path)
    await run('truncate', ['-s', String(size - 64 * KiB), path])
    const result = await checkImage(host, path)
    assert.equal(result.state, 'damaged')
  })

  test('is never given a name it could misread', async () => {
    await assert.rejects(imageInfo(host, { path: 'json:{}', format: 'raw' }), /absolute path/)
    await assert.rejects(createImage(host, { path: '-h', format: 'raw', sizeBytes: 1 }), /absolute path/)
  })

  test('says when the device is full', async (t) => {
    const at = await folder(t)
    await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', at])
    try {
      const image = { path: join(at, 'disk.raw'), format: 'raw', sizeBytes: 8 * MiB, preallocation: 'full' } as const
      await assert.rejects(createImage(host, image), (fault: Fault) => {
        assert.equal(fault.kind, 'exhausted')
        assert.match(fault.remedy ?? '', /Free space there/)
        return true
      })
    } finally {
      await run('umount', [at])
    }
  })
})

suite('what qemu-img prints', () => {
  test('of a hostile image names every file it refers to', () => {
    const info = parseImageInfo(
      JSON.stringify({
        'virtual-size': 1536,
        filename: '/srv/h.qcow2',
        format: 'qcow2',
        'actual-size': 200704,
        'format-specific': { type: 'qcow2', data: { compat: '1.1', 'data-file': '/srv/d.raw', corrupt: false } },
        'full-backing-filename': '/etc/passwd',
        'backing-filename': '../etc/passwd',
      }),
    )
    assert.deepEqual(info.refersTo, ['../etc/passwd', '/etc/passwd', '/srv/d.raw'])
    assert.deepEqual([info.virtualSizeBytes, info.allocatedBytes], [1536, 200704])
  })

  test('of a vmdk does not count the file itself', () => {
    const extent = (filename: string) => ({ 'virtual-size': 1, filename, 'cluster-size': 65536, format: '' })
    const info = (extents: readonly object[]) =>
      parseImageInfo(
        JSON.stringify({
          'virtual-size': 1,
          filename: '/a.vmdk',
          format: 'vmdk',
          'actual-size': 1,
          'format-specific': { type: 'vmdk', data: { 'create-type': 'monolithicSparse', extents } },
        }),
      )
    assert.deepEqual(info([extent('/a.vmdk')]).refersTo, [])
    assert.deepEqual(info([extent('/a.vmdk'), extent('/etc/shadow')]).refersTo, ['/etc/shadow'])
  })

  test('as progress may come in one piece', () => {
    assert.equal(progressIn('    (0.00/100%)\r    (12.50/100%)\r'), 0.125)
    assert.equal(progressIn('    (100.00/100%)\r'), 1)
    assert.equal(progressIn('qemu-img: warning'), undefined)
  })
})
