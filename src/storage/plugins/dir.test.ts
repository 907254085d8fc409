import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import type { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { mountPoints } from '#host/disks/mount.ts'
import { conformance } from '../conformance.ts'
import { dir } from './dir.ts'

const run = promisify(execFile)

/** A folder the users of guests can pass, as a node's own are. */
async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'hako-dir-'))
  await chmod(path, 0o711)
  t.after(async () => {
    if ((await mountPoints()).includes(path)) await run('umount', [path])
    await rm(path, { recursive: true })
  })
  return path
}

async function smallTmpfs(t: TestContext): Promise<string> {
  const path = await folder(t)
  await run('mount', ['-t', 'tmpfs', '-o', 'size=12m,mode=0711', 'tmpfs', path])
  return path
}

const open = (options: Readonly<Record<string, unknown>>) => dir.open(options, { host: machine(), storage: 'local' })

conformance(dir, {
  place: async (t) => ({ path: join(await folder(t), 'storage') }),
  tightPlace: async (t) => ({ path: await smallTmpfs(t) }),
})

suite('a dir storage', () => {
  test('lies where PVE would look for it', async (t) => {
    const path = await folder(t)
    const { images, files } = open({ path })
    const disk = { kind: 'image', vmid: asVmid(100), base: 'vm-100-disk-0', format: 'qcow2' } as const
    assert.equal(images?.path(disk), `${path}/images/100/vm-100-disk-0.qcow2`)
    const at = (content: 'iso' | 'vztmpl' | 'snippets' | 'import' | 'backup', file: string) =>
      files?.path({ kind: 'file', content, file })
    assert.equal(at('iso', 'a.iso'), `${path}/template/iso/a.iso`)
    assert.equal(at('vztmpl', 'a.tar.zst'), `${path}/template/cache/a.tar.zst`)
    assert.equal(at('snippets', 'user.yaml'), `${path}/snippets/user.yaml`)
    assert.equal(at('import', 'a.qcow2'), `${path}/import/a.qcow2`)
    assert.equal(at('backup', 'vzdump-qemu-100-x.vma.zst'), `${path}/dump/vzdump-qemu-100-x.vma.zst`)
  })

  test('lies elsewhere where its owner says so, in folders it makes with the same modes', async (t) => {
    const path = await folder(t)
    const { images, files } = open({ path, 'content-dirs': 'images=vm/disks;iso=discs, backup=old/dumps' })
    const disk = { kind: 'image', vmid: asVmid(100), base: 'vm-100-disk-0', format: 'raw' } as const
    await images?.create(disk, { sizeBytes: 512 })
    assert.equal(images?.path(disk), `${path}/vm/disks/100/vm-100-disk-0.raw`)
    assert.deepEqual((await images?.list())?.length, 1)
    assert.equal(files?.path({ kind: 'file', content: 'iso', file: 'a.iso' }), `${path}/discs/a.iso`)
    for (const made of ['vm', 'vm/disks']) assert.equal((await stat(join(path, made))).mode & 0o777, 0o711, made)
    assert.deepEqual(await readdir(path), ['vm'])
    for (const wrong of [
      'iso=../elsewhere',
      'iso=/etc',
      'iso=a/../../b',
      'iso=.',
      'disks=x',
      'iso',
      'iso=a,iso=b',
      'iso=snippets',
      'iso=images/100',
      'backup=datastore',
    ]) {
      assert.throws(
        () => open({ path, 'content-dirs': wrong }),
        (fault: Fault) => fault.fields?.['content-dirs'] !== undefined,
        wrong,
      )
    }
  })

  test('makes no folder where its owner forbids it, and says which is missing', async (t) => {
    const path = await folder(t)
    const disk = { kind: 'image', vmid: asVmid(100), base: 'vm-100-disk-0', format: 'raw' } as const
    for (const forbidding of [{ 'create-subdirs': false }, { mkdir: false }]) {
      const { images } = open({ path, ...forbidding })
      await assert.rejects(async () => images?.create(disk, { sizeBytes: 512 }), {
        kind: 'unavailable',
        message: `the folder '${path}/images' does not exist`,
      })
      assert.deepEqual(await readdir(path), [])
    }
    await mkdir(join(path, 'images'))
    await open({ path, mkdir: false }).images?.create(disk, { sizeBytes: 512 })
    await assert.rejects(open({ path: join(path, 'none'), mkdir: false }).prepare(), /does not exist/)
    await open({ path: join(path, 'made'), mkdir: false, 'create-base-path': true }).prepare()
  })

  test('lets users of guests pass its folders but not look into them', async (t) => {
    const path = join(await folder(t), 'made')
    const { prepare, images } = open({ path })
    await prepare()
    await images?.create(
      { kind: 'image', vmid: asVmid(100), base: 'vm-100-disk-0', format: 'raw' },
      { sizeBytes: 1024 * 1024 },
    )
    for (const part of ['', 'images', 'images/100']) {
      assert.equal((await stat(join(path, part))).mode & 0o777, 0o711, part)
    }
  })

  test('an emptied folder of a guest goes with its last disk', async (t) => {
    const path = await folder(t)
    const { images } = open({ path })
    const disk = { kind: 'image', vmid: asVmid(100), base: 'vm-100-disk-0', format: 'raw' } as const
    await images?.create(disk, { sizeBytes: 4096 })
    await images?.remove(disk)
    assert.deepEqual(await readdir(join(path, 'images')), [])
  })

  test('takes links and foreign names for what they are: no volumes', async (t) => {
    const path = await folder(t)
    await mkdir(join(path, 'images/100'), { recursive: true })
    await mkdir(join(path, 'template/iso'), { recursive: true })
    await symlink('/etc/shadow', join(path, 'images/100/vm-100-disk-0.raw'))
    await symlink('/etc/shadow', join(path, 'template/iso/shadow.iso'))
    await writeFile(join(path, 'images/100/vm-101-disk-0.raw'), 'of another guest')
    await writeFile(join(path, 'images/100/notes.txt'), 'mine')
    const { images, files } = open({ path })
    assert.deepEqual(await images?.list(), [])
    assert.deepEqual(await files?.list('iso'), [])
  })

  test('is not used while its disk is not mounted', async (t) => {
    const path = await folder(t)
    const storage = open({ path, is_mountpoint: 'yes' })
    await assert.rejects(storage.requireActive(), (fault: Fault) => {
      assert.equal(fault.kind, 'unavailable')
      assert.equal(fault.message, `storage 'local': nothing is mounted on '${path}'`)
      return true
    })
    await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', path])
    await storage.requireActive()
  })

  test('is not used when its folder is gone', async (t) => {
    const path = join(await folder(t), 'gone')
    await assert.rejects(open({ path }).requireActive(), /storage 'local': the folder '.*gone' does not exist/)
    await assert.rejects(open({ path, 'create-base-path': false }).prepare(), /does not exist/)
  })

  test('says which folder keeps a guest from its disk', async (t) => {
    const path = await folder(t)
    const { images } = open({ path })
    const disk = { kind: 'image', vmid: asVmid(100), base: 'vm-100-disk-0', format: 'raw' } as const
    await images?.create(disk, { sizeBytes: 4096 })
    await chmod(path, 0o700)
    await assert.rejects(
      async () => images?.giveTo(disk, 1_000_000_100),
      (fault: Fault) => {
        assert.equal(fault.message, `folder '${path}' (mode 700) cannot be passed by a guest's user`)
        assert.match(fault.remedy ?? '', /chmod o\+x/)
        return true
      },
    )
  })

  test('accepts as its path only what leads nowhere else', () => {
    for (const path of ['relative', '/a/../b', '/a/./b', '/a/..', '/', '/a b', '/a\nb', '//', '/a/']) {
      assert.throws(() => open({ path }), /Parameter verification failed/, path)
    }
    for (const path of ['/srv', '/mnt/disk.1/..hidden', '/a/.b']) open({ path })
  })
})
