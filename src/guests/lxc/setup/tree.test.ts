import assert from 'node:assert/strict'
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { machine } from '#host/exec.ts'
import { Tree } from './tree.ts'

const owner = { uid: 100_000, gid: 100_000 }

suite('the tree of a container', () => {
  let home: string
  let rootfs: string
  let tree: Tree
  before(async () => {
    home = await mkdtemp(join(tmpdir(), 'hako-tree-'))
    rootfs = join(home, 'rootfs')
    await mkdir(join(rootfs, 'etc'), { recursive: true })
    await mkdir(join(home, 'etc'))
    await writeFile(join(home, 'etc/secret'), 'of the node')
    tree = new Tree(rootfs, owner)
  })
  after(async () => {
    tree[Symbol.dispose]()
    await rm(home, { recursive: true, force: true })
  })
  const untouched = async () => {
    assert.deepEqual((await readdir(home)).toSorted(), ['etc', 'rootfs'])
    assert.deepEqual(await readdir(join(home, 'etc')), ['secret'])
    assert.equal(await readFile(join(home, 'etc/secret'), 'utf8'), 'of the node')
  }

  test('gets files of its own root, with the folders they lie in', async () => {
    await tree.write('/etc/new/deep/file', 'text', { mode: 0o640 })
    const { uid, gid, mode } = await stat(join(rootfs, 'etc/new/deep/file'))
    assert.deepEqual([uid, gid, mode & 0o7777], [100_000, 100_000, 0o640])
    assert.equal((await stat(join(rootfs, 'etc/new'))).uid, 100_000)
    assert.equal(await tree.read('/etc/new/deep/file'), 'text')
    assert.deepEqual(await readdir(join(rootfs, 'etc/new/deep')), ['file'])
  })

  test('keeps owner and mode of a file that is written anew, and leaves one alone that says so already', async () => {
    await tree.write('/etc/shadow', 'one', { mode: 0o640 })
    await machine().run(['chown', '100000:100042', join(rootfs, 'etc/shadow')])
    await tree.write('/etc/shadow', 'two')
    const { gid, mode, ino } = await stat(join(rootfs, 'etc/shadow'))
    assert.deepEqual([gid, mode & 0o7777], [100_042, 0o640])
    await tree.write('/etc/shadow', 'two')
    assert.equal((await stat(join(rootfs, 'etc/shadow'))).ino, ino)
  })

  test('is not left by links: absolute ones begin at its root, and nothing is above it', async () => {
    const outside = join(home, 'etc')
    const links: Record<string, string> = {
      absolute: '/etc',
      outside,
      up: '../../../../../../..',
      self: '/proc/self/cwd',
      'up-and-out': `../..${outside}`,
    }
    for (const [name, target] of Object.entries(links)) {
      await symlink(target, join(rootfs, name))
      assert.equal(await tree.read(`/${name}/secret`), undefined, name)
      await tree.write(`/${name}/made`, 'inside').catch(() => {})
      await tree.link(`/${name}/link`, '/x').catch(() => {})
      await tree.remove(`/${name}/secret`)
      await tree.makeDirectory(`/${name}/folder`).catch(() => {})
      await untouched()
    }
    assert.equal(await readFile(join(rootfs, 'etc/made'), 'utf8'), 'inside')
    assert.equal(await tree.read('/../../../etc/made'), 'inside')
  })

  test('has files behind links written, where the links lead inside', async () => {
    await symlink('/run/there', join(rootfs, 'etc/linked'))
    await tree.write('/etc/linked', 'text')
    assert.equal(await readlink(join(rootfs, 'etc/linked')), '/run/there')
    assert.equal(await readFile(join(rootfs, 'run/there'), 'utf8'), 'text')
    await symlink(join(home, 'etc/secret'), join(rootfs, 'etc/hosts'))
    await tree.write('/etc/hosts', 'mine')
    await untouched()
    assert.equal(await tree.read('/etc/hosts'), 'mine')
    await symlink('round', join(rootfs, 'etc/round'))
    await assert.rejects(tree.write('/etc/round', 'x'), /too many links|circles/)
  })

  test('may hold pipes, devices and directories where files are expected: nobody waits', async () => {
    await machine().run(['mkfifo', join(rootfs, 'etc/pipe')])
    await machine().run(['mknod', join(rootfs, 'etc/zero'), 'c', '1', '5'])
    assert.equal(await tree.read('/etc/pipe'), undefined)
    assert.equal(await tree.read('/etc/zero'), undefined)
    assert.equal(await tree.read('/etc'), undefined)
    await tree.write('/etc/pipe', 'a file now')
    await tree.write('/etc/zero', 'a file now')
    assert.ok((await lstat(join(rootfs, 'etc/zero'))).isFile())
    await assert.rejects(tree.write('/etc/new', 'x'), /'\/etc\/new' in the container is a directory/)
  })
})
