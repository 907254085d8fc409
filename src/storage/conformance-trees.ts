/** The part of the drivers' contract about containers' files; see `conformance.ts`. */
import assert from 'node:assert/strict'
import { chmod, chown, lstat, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import type { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { checkExt4, growExt4, makeExt4 } from '#host/disks/ext4.ts'
import { mountImage, unmount } from '#host/disks/mount.ts'
import type { Options, StorageLab } from './conformance.ts'
import { leavingRules } from './conformance-leaving.ts'
import type { StorageDriver, StoragePlugin, TreeLayers, TreePart } from './plugin.ts'
import type { ImageName, TreeName } from './volume.ts'

const host = machine()
const vmid = asVmid(100)
const root = 100_000
const tree: TreeName = { kind: 'tree', vmid, base: 'subvol-100-disk-0' }
const other: TreeName = { kind: 'tree', vmid: asVmid(101), base: 'subvol-101-disk-0' }

/** As a container's root has it: owned by a shifted id, with a file that says something. */
const saying = (text: string) => async (path: string) => {
  await writeFile(join(path, 'note'), text)
  await chown(path, root, root)
  await chmod(path, 0o755)
}

const noteAt = (path: string) => readFile(join(path, 'note'), 'utf8')

/** @param writerToKill starts a process in the middle of making a tree, and returns its end by kill -9 */
export function treeRules(
  plugin: StoragePlugin,
  lab: StorageLab,
  writerToKill: (t: TestContext, options: Options, name: TreeName) => Promise<() => Promise<void>>,
): void {
  const open = (options: Options) => plugin.open(options, { host, storage: 'under-test' })
  const freshDriver = async (t: TestContext) => {
    const driver = open(await lab.place(t))
    await driver.prepare()
    return driver
  }
  const fresh = async (t: TestContext) => treesOf(await freshDriver(t))
  const { snapshots, links, limits } = plugin.features.trees
  comingRules(freshDriver)

  test("kill -9 while containers' files are unpacked leaves nothing to see, and a sweep removes the rest", async (t) => {
    const options = await lab.place(t)
    const driver = open(options)
    await driver.prepare()
    const kill = await writerToKill(t, options, tree)

    assert.deepEqual(await driver.sweep(), [], 'what a living process writes is left alone')
    await kill()
    assert.deepEqual(await treesOf(driver).list(), [])
    assert.equal((await driver.sweep()).length, 1)
    assert.deepEqual(await driver.sweep(), [])
    await treesOf(driver).create(tree, saying('again'))
  })

  leavingRules("container's tree", async (t) => {
    const trees = await fresh(t)
    await trees.create(tree, saying('here'))
    const isListed = async () => (await trees.list()).length > 0
    return { part: trees, name: tree, isListed, content: () => readFile(join(trees.path(tree), 'note')) }
  })

  mountedRules(plugin, freshDriver)
  if (snapshots) snapshotRules(freshDriver)
  if (links) linkRules(freshDriver)
  if (limits) limitRules(fresh)
  test('what it says of its trees is what it has', async (t) => {
    const trees = await fresh(t)
    const has = { snapshots: trees.snapshots !== undefined, links: trees.links !== undefined }
    assert.deepEqual({ ...has, limits: trees.limit !== undefined }, { snapshots, links, limits })
    if (trees.copies) await copiesAreWhole(trees)
  })
}

function treesOf(driver: StorageDriver): TreePart {
  assert.ok(driver.trees, 'a driver whose content includes rootdir has the part for trees')
  return driver.trees
}

function comingRules(fresh: (t: TestContext) => Promise<StorageDriver>): void {
  test('a tree is seen when it is whole, with the owner and mode its content gave it', async (t) => {
    const driver = await fresh(t)
    const trees = treesOf(driver)
    const broken = trees.create(tree, async (path) => {
      await saying('half')(path)
      assert.deepEqual(await trees.list(), [])
      throw new Error('changed my mind')
    })
    await assert.rejects(broken, /changed my mind/)
    assert.deepEqual([await trees.list(), await driver.sweep()], [[], []])
    await trees.create(tree, saying('whole'))
    await trees.create(other, saying('of another'))
    assert.equal(await readFile(join(trees.path(tree), 'note'), 'utf8'), 'whole')
    const { uid, mode } = await lstat(trees.path(tree))
    assert.deepEqual([uid, mode & 0o7777], [root, 0o755])
    assert.deepEqual([(await trees.describe(tree)).name, (await trees.describe(tree)).sizeBytes], [tree, 0])
    assert.deepEqual(await trees.list(vmid), [await trees.describe(tree)])
    assert.equal((await trees.list()).length, 2)
  })

  test('of many who make the same tree at once, one succeeds', async (t) => {
    const driver = await fresh(t)
    const trees = treesOf(driver)
    const marks = ['A', 'B', 'C', 'D', 'E', 'F']
    const results = await Promise.allSettled(marks.map((mark) => trees.create(tree, saying(mark))))
    const winners = marks.filter((_, at) => results[at]?.status === 'fulfilled')
    assert.equal(winners.length, 1)
    for (const result of results) {
      if (result.status === 'rejected') assert.equal((result.reason as Fault).kind, 'conflict')
    }
    assert.equal(await readFile(join(trees.path(tree), 'note'), 'utf8'), winners[0])
    assert.deepEqual([(await trees.list()).length, await driver.sweep()], [1, []])
  })

  test('a tree passes to another guest whole, and takes the place of nobody', async (t) => {
    const trees = treesOf(await fresh(t))
    await trees.create(tree, saying('handed over'))
    await trees.create(other, saying('stays'))
    await assert.rejects(trees.rename(tree, other), /already exists/)
    const next = { ...other, base: other.base.replace(/\d+$/, '9') }
    await trees.rename(tree, next)
    await trees.rename(tree, next)
    assert.equal(await readFile(join(trees.path(next), 'note'), 'utf8'), 'handed over')
    assert.equal(await readFile(join(trees.path(other), 'note'), 'utf8'), 'stays')
    assert.deepEqual([(await trees.list(tree.vmid)).length, (await trees.list()).length], [0, 2])
    await trees.rename(next, tree)
    await assert.rejects(trees.rename(next, { ...next, base: `${next.base}9` }), /does not exist/)
  })

  test('a tree goes with everything a guest has left in it, and nothing else does', async (t) => {
    const trees = treesOf(await fresh(t))
    await trees.create(other, saying('stays'))
    await trees.create(tree, async (path) => {
      await symlink(trees.path(other), join(path, 'way'))
      await mkdir(join(path, 'kept'), { mode: 0o000 })
      await writeFile(join(path, 'kept', 'immutable'), 'x')
    })
    assert.equal(await trees.remove(tree), true)
    assert.deepEqual(await readdir(trees.path(other)), ['note'])
  })
}

/** A raw image is the other place for containers' files. */
function mountedRules(plugin: StoragePlugin, fresh: (t: TestContext) => Promise<StorageDriver>): void {
  const image: ImageName = { kind: 'image', vmid, base: 'vm-100-disk-0', format: 'raw' }

  test("a raw image holds a container's files, and grows with its file system", async (t) => {
    const { images } = await fresh(t)
    assert.ok(images)
    const mounted = async (path: string, isReadOnly: boolean, act: (folder: string) => Promise<void>) => {
      const { stdout } = await host.run(['mktemp', '-d', '--tmpdir', 'hako-image-XXXXXX'])
      const target = stdout.trim()
      const options = isReadOnly ? ['noload'] : []
      {
        await using mount = await mountImage(host, { image: path, target, isReadOnly, options })
        await act(mount.target)
      }
      await host.run(['rmdir', target])
    }
    await images.create(image, { sizeBytes: 24 * MiB, fill: (path) => makeExt4(host, path, root) })
    await mounted(images.path(image), false, saying('small'))
    const kept = plugin.features.snapshots.includes('raw') ? images.snapshots : undefined
    await kept?.take(image, 'then')
    await images.grow(image, 48 * MiB)
    await checkExt4(host, images.path(image))
    await growExt4(host, images.path(image))
    await mounted(images.path(image), false, async (folder) => {
      assert.equal(await readFile(join(folder, 'note'), 'utf8'), 'small')
      await writeFile(join(folder, 'large'), Buffer.alloc(28 * MiB, 7))
      await saying('large')(folder)
    })
    const before = kept?.pathOf?.(image, 'then')
    if (before === undefined) return
    await mounted(before, true, async (folder) => assert.deepEqual(await noteAt(folder), 'small'))
  })
}

function snapshotRules(fresh: (t: TestContext) => Promise<StorageDriver>): void {
  const made = async (t: TestContext) => {
    const driver = await fresh(t)
    const { snapshots, ...trees } = treesOf(driver)
    assert.ok(snapshots, 'a driver that says trees have snapshots has the verbs')
    await trees.create(tree, saying('before'))
    return { driver, trees, snapshots, say: (text: string) => writeFile(join(trees.path(tree), 'note'), text) }
  }
  test('a tree goes back to its snapshots, which can be read and not written', async (t) => {
    const { driver, trees, snapshots, say } = await made(t)
    await snapshots.take(tree, 'z-first')
    await snapshots.take(tree, 'z-first')
    await say('after')
    await snapshots.take(tree, 'a-second')
    assert.deepEqual(await snapshots.list(tree), ['z-first', 'a-second'])
    assert.equal(await noteAt(snapshots.pathOf(tree, 'z-first')), 'before')
    await assert.rejects(writeFile(join(snapshots.pathOf(tree, 'z-first'), 'note'), 'x'), { code: 'EROFS' })
    await snapshots.rollBack(tree, 'z-first')
    assert.equal(await noteAt(trees.path(tree)), 'before')
    await say('written again')
    await snapshots.rollBack(tree, 'a-second')
    assert.equal(await noteAt(trees.path(tree)), 'after')
    assert.deepEqual([(await trees.list()).length, await driver.sweep()], [1, []])
    const { uid, mode } = await lstat(trees.path(tree))
    assert.deepEqual([uid, mode & 0o7777], [root, 0o755])
  })

  test("a tree's snapshot is dropped once, however often it is asked for, and goes with its tree", async (t) => {
    const { trees, snapshots } = await made(t)
    await snapshots.drop(tree, 'never')
    await assert.rejects(snapshots.rollBack(tree, 'never'), /snapshot 'never' .* does not exist/)
    await snapshots.take(tree, 'one')
    await snapshots.drop(tree, 'one')
    await snapshots.drop(tree, 'one')
    assert.deepEqual(await snapshots.list(tree), [])
    await snapshots.take(tree, 'two')
    await trees.setAside(tree, 'mark')
    await trees.create(tree, saying('the next of that name'))
    assert.deepEqual(await snapshots.list(tree), [])
    await trees.remove(tree)
    await trees.bringBack(tree, 'mark')
    assert.deepEqual(await snapshots.list(tree), ['two'])
    await trees.remove(tree)
    await assert.rejects(lstat(snapshots.pathOf(tree, 'two')), { code: 'ENOENT' })
  })
}

function linkRules(fresh: (t: TestContext) => Promise<StorageDriver>): void {
  const third: TreeName = { kind: 'tree', vmid: asVmid(102), base: 'subvol-102-disk-0' }

  test("trees linked to a template's show what is in it and keep what they change to themselves", async (t) => {
    const driver = await fresh(t)
    const { links, ...trees } = treesOf(driver)
    assert.ok(links, 'a driver that says trees are linked has the verbs')
    await trees.create(tree, saying('of the template'))
    await assert.rejects(links.link(links.nameOf(other, tree), tree), /cannot be the base/)
    const base = await links.freeze(tree)
    assert.deepEqual(
      [base.base, await links.freeze(tree), await links.freeze(base)],
      ['basevol-100-disk-0', base, base],
    )
    const clone = links.nameOf(other, base)
    await links.link(clone, base)
    await assert.rejects(links.link(clone, base), (fault: Fault) => fault.kind === 'conflict')
    assert.deepEqual(
      (await trees.list(other.vmid)).map(({ name }) => name),
      [clone],
    )
    assert.deepEqual((await trees.describe(clone)).name, clone)

    await using shown = await show(t, await links.layersOf(clone))
    assert.equal(await readFile(join(shown.path, 'note'), 'utf8'), 'of the template')
    const { uid, mode } = await lstat(shown.path)
    assert.deepEqual([uid, mode & 0o7777], [root, 0o755])
    await writeFile(join(shown.path, 'note'), 'of the clone')
    await shown.hide()
    // A clone may become a template itself.
    const next = await links.freeze(clone)
    const grandchild = links.nameOf(third, next)
    await links.link(grandchild, next)
    await using below = await show(t, await links.layersOf(grandchild))
    assert.equal(await readFile(join(below.path, 'note'), 'utf8'), 'of the clone')
    await below.hide()
    await using first = await show(t, await links.layersOf(base))
    assert.equal(await readFile(join(first.path, 'note'), 'utf8'), 'of the template')
    assert.deepEqual(await driver.sweep(), [])
  })

  test('a template of trees becomes an ordinary tree again, also twice', async (t) => {
    const { links, ...trees } = treesOf(await fresh(t))
    assert.ok(links)
    await trees.create(tree, saying('P'))
    const base = await links.freeze(tree)
    assert.deepEqual([await links.unfreeze(base), await links.unfreeze(base)], [tree, tree])
    assert.deepEqual(
      (await trees.list()).map(({ name }) => name),
      [tree],
    )
    await writeFile(join(trees.path(tree), 'note'), 'Q')
  })

  test('no tree a guest has put together is taken for a linked one', async (t) => {
    const { links, ...trees } = treesOf(await fresh(t))
    assert.ok(links)
    await trees.create(tree, async (path) => {
      for (const folder of ['upper', 'work']) await mkdir(join(path, folder))
      await symlink('../../../../etc', join(path, 'lower'))
    })
    assert.deepEqual(await links.layersOf(tree), { kind: 'folder', path: trees.path(tree) })
    assert.deepEqual(
      (await trees.list()).map(({ name }) => name),
      [tree],
    )
    await assert.rejects(
      trees.describe({ ...tree, parent: { vmid: other.vmid, base: 'basevol-101-disk-0' } }),
      /does not exist/,
    )
  })
}

/** The tree as a container sees it, until the scope ends. */
async function show(t: TestContext, layers: TreeLayers) {
  if (layers.kind === 'folder') {
    return { path: layers.path, hide: async () => {}, [Symbol.asyncDispose]: async () => {} }
  }
  const { stdout } = await host.run(['mktemp', '-d', '--tmpdir', 'hako-shown-XXXXXX'])
  const path = stdout.trim()
  const { upper, work, lowers } = layers
  const options = `lowerdir=${lowers.join(':')},upperdir=${upper},workdir=${work}`
  await host.run(['mount', '-t', 'overlay', '-o', options, 'overlay', path])
  const hide = () => unmount(host, path)
  t.after(async () => {
    await hide()
    await host.run(['rmdir', path])
  })
  return { path, hide, [Symbol.asyncDispose]: hide }
}

function limitRules(fresh: (t: TestContext) => Promise<TreePart>): void {
  test('a tree is held to its size, also while it is filled, and has more once it is given more', async (t) => {
    const trees = await fresh(t)
    const block = Buffer.alloc(6 * MiB, 7)
    const tooMuch = trees.create(tree, (path) => writeFile(join(path, 'large'), Buffer.alloc(12 * MiB, 7)), 8 * MiB)
    await assert.rejects(tooMuch, (fault: Fault) => fault.kind === 'exhausted')
    assert.deepEqual(await trees.list(), [])
    await trees.create(tree, (path) => writeFile(join(path, 'first'), block), 8 * MiB)
    assert.equal((await trees.describe(tree)).sizeBytes, 8 * MiB)
    await assert.rejects(writeFile(join(trees.path(tree), 'second'), block), { errno: -122 })
    await host.run(['rm', join(trees.path(tree), 'second')])
    await trees.limit?.(tree, 24 * MiB)
    await writeFile(join(trees.path(tree), 'second'), block)
    await host.run(['sync', '--file-system', trees.path(tree)])
    const { sizeBytes, usedBytes } = await trees.describe(tree)
    assert.equal(sizeBytes, 24 * MiB)
    assert.ok(usedBytes >= 2 * block.length && usedBytes < 2 * block.length + MiB, `${usedBytes} bytes`)
    assert.deepEqual(await trees.list(), [await trees.describe(tree)])
    if (!trees.snapshots) return
    await trees.snapshots.take(tree, 'one')
    await trees.snapshots.rollBack(tree, 'one')
    assert.equal((await trees.describe(tree)).sizeBytes, 24 * MiB)
  })
}

async function copiesAreWhole(trees: TreePart): Promise<void> {
  const { copies, snapshots } = trees
  assert.ok(copies)
  await trees.create(tree, saying('original'))
  await writeFile(join(trees.path(tree), 'large'), Buffer.alloc(512 * KiB, 'x'))
  await copies.copy(other, { name: tree })
  await writeFile(join(trees.path(other), 'note'), 'copy')
  assert.equal(await readFile(join(trees.path(tree), 'note'), 'utf8'), 'original')
  await snapshots?.take(tree, 'then')
  await writeFile(join(trees.path(tree), 'note'), 'later')
  const third: TreeName = { kind: 'tree', vmid, base: 'subvol-100-disk-1' }
  await copies.receive(third, copies.send({ name: tree, tag: snapshots ? 'then' : undefined }), {})
  assert.equal(await readFile(join(trees.path(third), 'note'), 'utf8'), snapshots ? 'original' : 'later')
  assert.equal((await lstat(trees.path(third))).uid, root)
  assert.equal((await readFile(join(trees.path(third), 'large'))).length, 512 * KiB)
  await writeFile(join(trees.path(third), 'note'), 'mine')
}
