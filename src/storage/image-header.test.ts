import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import fc from 'fast-check'
import type { Fault } from '#base/fault.ts'
import { MiB } from '#base/bytes.ts'
import { qcow2HeaderOf, readQcow2Header, requireSelfContained, snapshotTags } from './image-header.ts'

const run = promisify(execFile)

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'hako-header-'))
  t.after(() => rm(path, { recursive: true }))
  return path
}

async function qcow2(path: string, ...options: readonly string[]): Promise<string> {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, '4M'])
  return path
}

async function patch(path: string, at: number, bytes: Buffer): Promise<void> {
  await using file = await open(path, 'r+')
  await file.write(bytes, 0, bytes.length, at)
}

const refused = (about: RegExp) => (fault: Fault) => {
  assert.equal(fault.kind, 'invalid')
  assert.match(fault.message, about)
  assert.ok(fault.remedy)
  return true
}

suite('the header of an image', () => {
  test('of qcow2 tells what QEMU wrote there', async (t) => {
    const at = await folder(t)
    for (const compat of ['0.10', '1.1']) {
      const path = await qcow2(join(at, `${compat}.qcow2`), '-o', `compat=${compat}`)
      const { version, sizeBytes, backing, hasDataFile, isEncrypted, isCorrupt } = await qcow2HeaderOf(path)
      assert.deepEqual(
        [sizeBytes, backing, hasDataFile, isEncrypted, isCorrupt],
        [4 * MiB, undefined, false, false, false],
      )
      assert.equal(version, compat === '1.1' ? 3 : 2)
      await requireSelfContained(path, 'qcow2')
    }
  })

  test('tells of stored bitmaps as long as there are any', async (t) => {
    const at = await folder(t)
    const path = await qcow2(join(at, 'recorded.qcow2'))
    const has = async () => (await qcow2HeaderOf(path)).hasBitmaps
    assert.equal(await has(), false)
    for (const name of ['one', 'two']) await run('qemu-img', ['bitmap', '--add', path, name])
    await run('qemu-img', ['bitmap', '--remove', path, 'one'])
    assert.equal(await has(), true)
    await run('qemu-img', ['bitmap', '--remove', path, 'two'])
    assert.equal(await has(), false)
  })

  test('leads to the snapshots inside, and to nothing where its table of them is damaged', async (t) => {
    const at = await folder(t)
    for (const compat of ['0.10', '1.1']) {
      const path = await qcow2(join(at, `${compat}.qcow2`), '-o', `compat=${compat}`)
      assert.deepEqual(await snapshotTags(path), [])
      const tags = ['one', 'before-the-update', 'a'.repeat(40), 'naïve']
      for (const tag of tags) await run('qemu-img', ['snapshot', '-q', '-c', tag, path])
      assert.deepEqual(await snapshotTags(path), tags)
      await run('qemu-img', ['snapshot', '-q', '-d', 'one', path])
      assert.deepEqual(await snapshotTags(path), tags.slice(1))
      const damaged = (fault: Fault) => fault.kind === 'damaged' && /table of snapshots/.test(fault.message)
      await patch(path, 60, Buffer.from([0, 0, 0, 200]))
      await assert.rejects(snapshotTags(path), damaged)
      await patch(path, 60, Buffer.from([0xff, 0xff, 0xff, 0xff]))
      await assert.rejects(snapshotTags(path), damaged)
      await patch(path, 60, Buffer.from([0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]))
      await assert.rejects(snapshotTags(path), damaged)
    }
  })

  test('gives away a backing file, whatever it is', async (t) => {
    const at = await folder(t)
    for (const backing of ['/etc/shadow', 'nbd://127.0.0.1/', 'json:{"driver":"file","filename":"/etc/shadow"}']) {
      const path = await qcow2(join(at, 'hostile.qcow2'), '-u', '-b', backing, '-F', 'raw')
      await assert.rejects(requireSelfContained(path, 'qcow2'), refused(/refers to the backing file/))
    }
  })

  test('gives away a data file', async (t) => {
    const at = await folder(t)
    const path = await qcow2(join(at, 'hostile.qcow2'), '-o', `data_file=${at}/victim.raw`)
    await assert.rejects(requireSelfContained(path, 'qcow2'), refused(/refers to an external data file/))
  })

  test('tells that an image is encrypted or damaged', async (t) => {
    const at = await folder(t)
    const path = await qcow2(join(at, 'marked.qcow2'))
    await patch(path, 79, Buffer.from([2]))
    await assert.rejects(requireSelfContained(path, 'qcow2'), (fault: Fault) => fault.kind === 'damaged')
    await patch(path, 32, Buffer.from([0, 0, 0, 2]))
    await assert.rejects(requireSelfContained(path, 'qcow2'), /is encrypted/)
  })

  test('of a vmdk that is a list of other files is refused', async (t) => {
    const at = await folder(t)
    const [list, sparse] = [join(at, 'list.vmdk'), join(at, 'sparse.vmdk')]
    await writeFile(list, '# Disk DescriptorFile\nversion=1\nRW 2048 FLAT "/etc/shadow" 0\n')
    await assert.rejects(requireSelfContained(list, 'vmdk'), refused(/refers to the files it lists/))
    await run('qemu-img', ['create', '-q', '-f', 'vmdk', sparse, '4M'])
    await requireSelfContained(sparse, 'vmdk')
    await patch(sparse, 12, Buffer.alloc(8))
    await assert.rejects(requireSelfContained(sparse, 'vmdk'), refused(/refers to the files it lists/))
  })

  test('of raw is content, even where it looks like qcow2', async (t) => {
    const path = await qcow2(join(await folder(t), 'disguised.raw'), '-u', '-b', '/etc/shadow', '-F', 'raw')
    await requireSelfContained(path, 'raw')
  })

  test('that is none is called so', async (t) => {
    const path = join(await folder(t), 'text.qcow2')
    await writeFile(path, 'this is no image')
    await assert.rejects(requireSelfContained(path, 'qcow2'), /is not a qcow2 image/)
    await assert.rejects(requireSelfContained(path, 'vmdk'), /is not a sparse vmdk image/)
    await writeFile(path, '')
    await assert.rejects(requireSelfContained(path, 'qcow2'), /is not a qcow2 image/)
  })
})

test('whatever the bytes, reading a header ends in a header or in nothing', () => {
  const magic = Buffer.from('514649fb00000003', 'hex')
  fc.assert(
    fc.property(fc.boolean(), fc.uint8Array({ maxLength: 200 }), (isMarked, noise) => {
      const bytes = isMarked ? Buffer.concat([magic, noise]) : noise
      const header = readQcow2Header(bytes)
      if (header) assert.ok(isMarked && bytes.length >= 104 && header.version === 3)
    }),
  )
})
