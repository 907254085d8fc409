/** Containers' files in a folder: there whole or not at all, and never anybody else's. */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { asVmid } from '#base/ids.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import type { TreeName } from '../volume.ts'
import { layoutAt } from './dir-paths.ts'
import { dirTrees } from './dir-trees.ts'

const name: TreeName = { kind: 'tree', vmid: asVmid(100), base: 'subvol-100-disk-0' }

async function place(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), 'hako-trees-'))
  t.after(() => rm(root, { recursive: true }))
  return { root, trees: dirTrees({ layout: layoutAt(root), storage: 'local', host: machine() }) }
}

const filled = (path: string) => writeFile(join(path, 'note'), 'mine')

test('a tree is seen when it is whole, and by one owner alone', async (t) => {
  const { root, trees } = await place(t)
  await assert.rejects(
    trees.create(name, async (path) => {
      await filled(path)
      assert.deepEqual(await trees.list(), [])
      throw new Error('on the way')
    }),
    /on the way/,
  )
  assert.deepEqual(await readdir(join(root, 'images')), [])
  // Of many who want one name, one has it.
  const all = await Promise.allSettled(Array.from({ length: 8 }, () => trees.create(name, filled)))
  const refused = all.filter((one) => one.status === 'rejected')
  assert.equal(refused.length, 7)
  assert.ok(refused.every(({ reason }) => isFault(reason, 'conflict')))
  assert.equal(await readFile(join(trees.path(name), 'note'), 'utf8'), 'mine')
  assert.deepEqual(
    (await trees.list(asVmid(100))).map((facts) => facts.name),
    [name],
  )
  assert.deepEqual(await trees.list(asVmid(101)), [])
})

test('a tree that is set aside comes back as it was, or goes', async (t) => {
  const { root, trees } = await place(t)
  await trees.create(name, filled)
  await trees.setAside(name, 'mark')
  await trees.setAside(name, 'mark')
  assert.deepEqual(await trees.list(), [])
  await assert.rejects(trees.describe(name), (fault) => isFault(fault, 'missing'))
  await trees.bringBack(name, 'mark')
  await trees.bringBack(name, 'mark')
  assert.equal(await readFile(join(trees.path(name), 'note'), 'utf8'), 'mine')
  await trees.setAside(name, 'mark')
  await trees.create(name, filled)
  await assert.rejects(trees.bringBack(name, 'mark'), (fault) => isFault(fault, 'conflict'))
  await trees.erase(name, 'mark')
  assert.equal(await trees.remove(name), true)
  assert.equal(await trees.remove(name), false)
  assert.deepEqual(await readdir(join(root, 'images')), [])
})

test('removing a tree follows no link a guest has left in it', async (t) => {
  const { root, trees } = await place(t)
  const outside = join(root, 'outside')
  await mkdir(outside)
  await filled(outside)
  await trees.create(name, (path) => symlink(outside, join(path, 'way')))
  await trees.remove(name)
  assert.deepEqual(await readdir(outside), ['note'])
})

test('a link in a tree’s place is no tree', async (t) => {
  const { root, trees } = await place(t)
  await mkdir(join(root, 'images/100'), { recursive: true })
  await symlink('/etc', trees.path(name))
  assert.deepEqual(await trees.list(), [])
  await assert.rejects(trees.describe(name), (fault) => isFault(fault, 'missing'))
})
