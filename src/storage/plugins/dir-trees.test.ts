/** Containers' files in a folder: what is not in the contract of all drivers. */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { asVmid } from '#base/ids.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import type { TreeName } from '../volume.ts'
import { layoutAt } from './dir-paths.ts'
import { dirTrees, sweepReserved } from './dir-trees.ts'

const name: TreeName = { kind: 'tree', vmid: asVmid(100), base: 'subvol-100-disk-0' }

async function place(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), 'hako-trees-'))
  t.after(() => rm(root, { recursive: true }))
  return { root, trees: dirTrees({ layout: layoutAt(root), storage: 'local', host: machine() }) }
}

const filled = (path: string) => writeFile(join(path, 'note'), 'mine')

test("a name that was taken a moment ago is nobody else's, and no tree", async (t) => {
  const { root, trees } = await place(t)
  await mkdir(join(root, 'images/100'), { recursive: true })
  await mkdir(trees.path(name), { mode: 0o000 })
  assert.deepEqual(await trees.list(), [])
  assert.deepEqual(await sweepReserved(join(root, 'images/100')), [], 'somebody may be about to use it')
  await assert.rejects(trees.create(name, filled), (fault) => isFault(fault, 'conflict'))
})

test('a link in a tree’s place is no tree', async (t) => {
  const { root, trees } = await place(t)
  await mkdir(join(root, 'images/100'), { recursive: true })
  await symlink('/etc', trees.path(name))
  assert.deepEqual(await trees.list(), [])
  await assert.rejects(trees.describe(name), (fault) => isFault(fault, 'missing'))
})
