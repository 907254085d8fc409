/** A backup that stores anew what a damaged pack held of an entry: the entry is whole again, or told to be torn. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { appendFileSync, closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync } from 'node:fs'
import { readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { machine } from '#host/exec.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { filesBelow } from '../../../test/fixtures/datastore.ts'
import { nextTick, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { type TemporaryDatastore, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { differences, treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import type { RestorePoint } from '../point.ts'
import { verifyBackup, verifyPacks } from '../verify/verify.ts'
import { extentsMaximum } from './record.ts'
import { restoreTree } from './restore.ts'
import type { TreeSource } from './source.ts'
import { tarOf } from './tar.ts'

const at = (time: number): RestorePoint => ({ namespace: '', type: 'ct', id: '100', time: 1_795_000_000 + time })
const home = mkdtempSync(join(tmpdir(), 'hako-mending-'))
// Unlike others it takes attributes of any size.
await machine().run(['mount', '-t', 'tmpfs', 'hako-test', home])
after(async () => {
  await machine().run(['umount', home])
  await removeTree(machine(), home)
})
let folders = 0
function newFolder(): string {
  const path = join(home, `folder-${(folders += 1)}`)
  mkdirSync(path)
  return path
}

/** @returns files that are told to be torn */
async function backUp({ reopen }: TemporaryDatastore, time: number, source: TreeSource): Promise<string[]> {
  await nextTick()
  const torn: string[] = []
  await using writer = await (await reopen()).begin(at(time))
  await writer.addTree('rootfs', source, { onTorn: (path) => torn.push(path) })
  await writer.commit()
  return torn
}

const packsOf = async (path: string) => (await filesBelow(path)).filter((name) => name.startsWith('packs/'))

/** A first backup, a change, and a second: what that one stored is then damaged, and found to be. */
async function losingChange(temporary: TemporaryDatastore, tree: string, change: () => unknown): Promise<void> {
  const { path, reopen } = temporary
  await backUp(temporary, 0, unsettledSource({ root: tree }))
  const before = await packsOf(path)
  await change()
  await backUp(temporary, 1, unsettledSource({ root: tree }))
  const contentOnly = (bytes: Buffer) => (bytes.readUInt32LE(12) & 1) === 0
  for (const pack of await packsOf(path)) {
    const bytes = readFileSync(join(path, pack))
    if (before.includes(pack) || !contentOnly(bytes)) continue
    bytes[60] = (bytes[60] ?? 0) ^ 1
    writeFileSync(join(path, pack), bytes)
  }
  const { damaged } = await verifyPacks((await reopen()).datastore)
  assert.equal(damaged.length, 1)
}

async function restored({ reopen }: TemporaryDatastore, time: number): Promise<string> {
  await verifyBackup(await reopen(), at(time))
  await using reader = await (await reopen()).open(at(time))
  const target = newFolder()
  await restoreTree(reader, 'rootfs', { target })
  return target
}

suite('attributes that are too many to stand with their entry, and are lost', () => {
  for (const kind of ['file', 'folder'] as const) {
    test(`are stored anew with their ${kind}, whose content stays as long as it is`, async () => {
      await using temporary = await temporaryDatastore()
      const tree = newFolder()
      const path = join(tree, 'entry')
      if (kind === 'file') writeFileSync(path, randomBytes(200_000))
      else mkdirSync(path)
      writeFileSync(join(tree, 'other'), randomBytes(1_000))
      const value = randomBytes(3_000).toString('base64')
      const set = async (name: string) => machine().run(['setfattr', '-n', name, '-v', `0s${value}`, path])
      await losingChange(temporary, tree, async () => {
        await set('user.one')
        await set('user.two')
      })
      assert.deepEqual(await backUp(temporary, 2, unsettledSource({ root: tree })), [])
      const back = await restored(temporary, 2)
      assert.deepEqual(differences(treeManifest(tree), treeManifest(back)), [])
      await using reader = await (await temporary.reopen()).open(at(2))
      const archive = join(home, `${kind}.tar`)
      for await (const part of tarOf(reader, 'rootfs', '')) appendFileSync(archive, part)
      const { stdout } = await machine().run(['tar', '--list', '--verbose', '--file', archive])
      assert.match(stdout, kind === 'file' ? /200000 .* \.?\/?entry\n/ : / \.?\/?entry\/\n/)
    })
  }
})

suite('the rest of a file whose records are many, when it is lost', () => {
  const block = 4_096
  /** Every other block: each is a part of its own. */
  const writeBlocks = (path: string, from: number, to: number) => {
    const fd = openSync(path, 'a')
    closeSync(fd)
    const file = openSync(path, 'r+')
    for (let number = from; number < to; number += 1) writeSync(file, randomBytes(block), 0, block, number * 2 * block)
    ftruncateSync(file, to * 2 * block)
    closeSync(file)
  }

  async function losingRest(temporary: TemporaryDatastore): Promise<{ readonly tree: string; readonly path: string }> {
    const tree = newFolder()
    const path = join(tree, 'many')
    writeBlocks(path, 0, extentsMaximum)
    await losingChange(temporary, tree, () => writeBlocks(path, extentsMaximum, extentsMaximum + 40))
    return { tree, path }
  }

  /** Something happens to the file once it was looked at, and before it is opened. */
  function meanwhile(tree: string, act: () => void): TreeSource {
    const source = unsettledSource({ root: tree })
    const inner = source.folders.bind(source)
    return Object.assign(source, {
      *folders() {
        for (const folder of inner()) {
          yield {
            path: folder.path,
            *entries() {
              for (const entry of folder.entries()) {
                if (entry.name === 'many') act()
                yield entry
              }
            },
          }
        }
      },
    })
  }

  test('is read again, and nothing is told', async () => {
    await using temporary = await temporaryDatastore()
    const { tree } = await losingRest(temporary)
    assert.deepEqual(await backUp(temporary, 2, unsettledSource({ root: tree })), [])
    assert.deepEqual(differences(treeManifest(tree), treeManifest(await restored(temporary, 2))), [])
  })

  test('is told of when the file has vanished by then', async () => {
    await using temporary = await temporaryDatastore()
    const { tree, path } = await losingRest(temporary)
    assert.deepEqual(
      await backUp(
        temporary,
        2,
        meanwhile(tree, () => rmSync(path)),
      ),
      ['many'],
    )
    await restored(temporary, 2)
  })

  test('is told of when the file has grown by then, and is as long as its entry says', async () => {
    await using temporary = await temporaryDatastore()
    const { tree, path } = await losingRest(temporary)
    const whole = readFileSync(path)
    assert.deepEqual(
      await backUp(
        temporary,
        2,
        meanwhile(tree, () => appendFileSync(path, randomBytes(50_000))),
      ),
      ['many'],
    )
    assert.deepEqual(readFileSync(join(await restored(temporary, 2), 'many')), whole)
  })
})
