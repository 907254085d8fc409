/**
 * Content that is gone while the index knows nothing of it any more: nobody misses it by looking for a pack. It is noticed by
 * whoever takes it over from an earlier backup, at the latest after the next collection of garbage, and stored anew.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { disk, filesBelow, memorySource } from '../../test/fixtures/datastore.ts'
import { makeManyFiles, nextTick, unsettledSource } from '../../test/fixtures/every-entry.ts'
import { point, restored, temporaryDatastore } from '../../test/fixtures/sealed-datastore.ts'
import { differences, treeManifest } from '../../test/fixtures/tree-manifest.ts'
import { diskBefore } from './backup/add-whole.ts'
import { collectGarbage } from './collect/garbage.ts'
import type { OpenDatastore } from './datastore.ts'
import { shortIdBytes } from './format.ts'
import { repairIndex } from './tidy/repair.ts'
import { packName } from './packs/pack.ts'
import { printPoint } from './point.ts'
import { restoreTree } from './tree/restore.ts'
import type { AddDiskOptions } from './backup/writer.ts'
import type { BlockSource } from './backup/block-source.ts'
import { verifyBackup } from './verify/verify.ts'

const home = mkdtempSync(join(tmpdir(), 'hako-lost-'))
after(() => removeTree(machine(), home))

/** Says of every chunk that it may be there, as filters do of one in a hundred. */
async function blindFilters(path: string): Promise<AsyncDisposable> {
  const before = new Map<string, Buffer>()
  for (const name of readdirSync(join(path, 'segments'))) {
    const file = join(path, 'segments', name)
    const bytes = await readFile(file)
    before.set(file, Buffer.from(bytes))
    const [filterBytes, macBytes] = [bytes.readUInt32LE(16), 32]
    bytes.fill(0xff, bytes.length - macBytes - filterBytes, bytes.length - macBytes)
    await writeFile(file, bytes)
  }
  return {
    async [Symbol.asyncDispose]() {
      for (const [file, bytes] of before) await writeFile(file, bytes)
    },
  }
}

suite('of a disk', () => {
  const content = disk('rrrr')
  /** Nothing is called changed. */
  const unchanged = () =>
    memorySource(content, [{ offset: 0, length: content.length, isZero: false, isUnchanged: true }])
  const since = { point: point(0), disk: 'scsi0', record: 'record 0' }

  async function backUp(open: OpenDatastore, time: number, source: BlockSource, options: AddDiskOptions = {}) {
    await using writer = await open.begin(point(time))
    const made = await writer.addDisk('scsi0', source, { record: `record ${time}`, ...options })
    await writer.commit()
    return made
  }

  /** A backup whose one pack of content is gone. */
  async function withLoss() {
    const temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const made = await backUp(open, 0, memorySource(content))
    const { ids } = await (await diskBefore(open, made)).map.piece(0)
    const lost = await open.index.find(ids.subarray(0, shortIdBytes))
    assert.ok(lost)
    rmSync(join(temporary.path, packName(lost.pack)))
    // The index forgets the pack, and nothing is called damaged any more.
    await repairIndex(await temporary.reopen())
    return temporary
  }

  async function areWhole(reopen: () => Promise<OpenDatastore>) {
    for (const time of [0, 1]) assert.ok((await restored(await reopen(), point(time), 'scsi0')).equals(content))
  }

  for (const how of ['changes', 'scan'] as const) {
    test(`is stored anew by a backup of ${how === 'scan' ? 'everything' : 'what changed'}`, async () => {
      await using temporary = await withLoss()
      const options = how === 'changes' ? { since, auditedShare: 1 } : {}
      const made = await backUp(await temporary.reopen(), 1, unchanged(), options)
      assert.equal(made.newChunks, 4)
      if (how === 'changes') assert.match(made.reading?.reason ?? '', /the datastore lacks content of backup/)
      await areWhole(temporary.reopen)
    })

    test(`is missed by a collection of garbage, and then stored anew for certain by a backup of ${how}`, async () => {
      await using temporary = await withLoss()
      const hits = `hits ${printPoint(point(0))}`
      const isNamed = (fault: unknown) => isFault(fault, 'damaged') && fault.message.includes(hits)
      await assert.rejects(collectGarbage(await temporary.reopen()), isNamed)
      {
        // Neither a look at some nor filters could tell.
        await using _blind = await blindFilters(temporary.path)
        const options = how === 'changes' ? { since, auditedShare: 0 } : {}
        const made = await backUp(await temporary.reopen(), 1, unchanged(), options)
        if (how === 'changes') assert.match(made.reading?.reason ?? '', /is damaged/)
        assert.equal(made.newChunks, 4)
      }
      await areWhole(temporary.reopen)
      await collectGarbage(await temporary.reopen())
      await verifyBackup(await temporary.reopen(), point(0))
      assert.equal((await (await temporary.reopen()).datastore.marks(point(0))).damage, undefined)
    })
  }
})

suite('of files', () => {
  let trees = 0
  const newFolder = () => {
    const path = join(home, `tree-${(trees += 1)}`)
    mkdirSync(path)
    return path
  }

  async function backUp(open: OpenDatastore, time: number, root: string) {
    await using writer = await open.begin(point(time))
    const added = await writer.addTree('rootfs', unsettledSource({ root }))
    await writer.commit()
    return added
  }

  /** The largest pack is gone: content is in it. */
  async function withLoss() {
    const temporary = await temporaryDatastore()
    const tree = newFolder()
    makeManyFiles(tree, 200)
    writeFileSync(join(tree, 'large'), randomBytes(300_000))
    await nextTick()
    await backUp(await temporary.reopen(), 0, tree)
    const packs = (await filesBelow(temporary.path)).filter((file) => file.startsWith('packs/'))
    const sizes = await Promise.all(packs.map(async (file) => (await readFile(join(temporary.path, file))).length))
    rmSync(join(temporary.path, packs[sizes.indexOf(Math.max(...sizes))] ?? ''))
    await repairIndex(await temporary.reopen())
    return { temporary, tree, [Symbol.asyncDispose]: () => temporary[Symbol.asyncDispose]() }
  }

  async function filesOf(open: OpenDatastore, time: number) {
    await using reader = await open.open(point(time))
    const target = newFolder()
    await restoreTree(reader, 'rootfs', { target })
    return treeManifest(target)
  }

  async function areWhole(tree: string, reopen: () => Promise<OpenDatastore>) {
    for (const time of [0, 1])
      assert.deepEqual(differences(treeManifest(tree), await filesOf(await reopen(), time)), [])
  }

  test('is stored anew by the next backup', async () => {
    await using lossy = await withLoss()
    const { tree, temporary } = lossy
    await assert.rejects(filesOf(await temporary.reopen(), 0), (fault) => isFault(fault, 'damaged'))
    const added = await backUp(await temporary.reopen(), 1, tree)
    assert.ok(added.newStoredBytes >= 300_000)
    await areWhole(tree, temporary.reopen)
  })

  test('is missed by a collection of garbage, and then stored anew for certain', async () => {
    await using lossy = await withLoss()
    const { tree, temporary } = lossy
    await assert.rejects(collectGarbage(await temporary.reopen()), (fault) => isFault(fault, 'damaged'))
    {
      await using _blind = await blindFilters(temporary.path)
      const added = await backUp(await temporary.reopen(), 1, tree)
      assert.ok(added.newStoredBytes >= 300_000)
    }
    await areWhole(tree, temporary.reopen)
    await collectGarbage(await temporary.reopen())
  })
})
