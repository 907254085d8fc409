/** A tree in a backup that was damaged, or made to do harm: it is named, contained, and never becomes wrong files. */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdirSync, mkdtempSync, openSync, readdirSync, writeFileSync } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { asDigest } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { removeTree } from '#host/remove-tree.ts'
import { filesBelow, temporaryDatastore } from '../../../test/fixtures/datastore.ts'
import { makeManyFiles, nextTick, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { differences, treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import type { BackupId } from '#datastore/backup-id.ts'
import type { Datastore } from '../datastore.ts'
import { parseManifest } from '../manifest.ts'
import { seal, unseal } from '#datastore/sealed.ts'
import { packsOf } from '../sweep.ts'
import { verifyDatastore } from '../verify-datastore.ts'
import { identityBytes } from '#datastore/tree/record.ts'
import { restoreTree } from '#datastore/tree/restore.ts'
import type { SourceEntry, TreeSource } from '#datastore/tree/source.ts'
import { tarOf } from '#datastore/tree/tar.ts'
import type { AddedTree } from './writer.ts'

const at = (time: number): BackupId => ({ type: 'ct', id: '100', time: 1_795_000_000 + time })
const home = mkdtempSync(join(tmpdir(), 'hako-trees-'))
after(() => removeTree(machine(), home))
let folders = 0
function newFolder(): string {
  const path = join(home, `folder-${(folders += 1)}`)
  mkdirSync(path)
  return path
}

async function backUp(datastore: Datastore, time: number, source: TreeSource): Promise<AddedTree> {
  await using writer = await datastore.begin(at(time))
  const added = await writer.addTree('rootfs', source)
  await writer.commit()
  return added
}

async function restored(datastore: Datastore, time: number): Promise<string> {
  await using reader = await datastore.open(at(time))
  const target = newFolder()
  await restoreTree(reader, 'rootfs', { target })
  return target
}

async function verify(datastore: Datastore, time: number): Promise<string> {
  await using reader = await datastore.open(at(time))
  return String((await reader.verify()).chunks)
}

async function flip(path: string, offset: number): Promise<() => Promise<void>> {
  const content = await readFile(path)
  const changed = Buffer.from(content)
  changed[offset] = (changed[offset] ?? 0) ^ (1 << randomInt(8))
  await writeFile(path, changed)
  return () => writeFile(path, content)
}

const isDamage = (error: unknown) => isFault(error, 'damaged')

suite('a tree with a turned byte', () => {
  test('is found by verifying, wherever the byte is, and what is restored is right or a fault', async () => {
    await using temporary = await temporaryDatastore()
    const { datastore, path } = temporary
    const tree = newFolder()
    makeManyFiles(tree, 500)
    writeFileSync(join(tree, 'large'), randomBytes(300_000))
    await backUp(datastore, 0, unsettledSource({ root: tree }))
    const before = treeManifest(tree)
    for (const file of (await filesBelow(path)).filter((one) => /^packs|\.tree$/.test(one))) {
      const { length } = await readFile(join(path, file))
      const places = [0, 9, 20, length - 1, length - 30, ...Array.from({ length: 5 }, () => randomInt(length))]
      for (const place of places) {
        const mend = await flip(join(path, file), place)
        const name = file.startsWith('packs') ? new RegExp(`pack ${file.slice(9)}`) : /tree rootfs of backup ct\/100\//
        await assert.rejects(verifyDatastore(datastore), (error) => isDamage(error) && name.test(String(error)))
        const verified = await verify(datastore, 0).catch((error: unknown) => assert.ok(isDamage(error), String(error)))
        const target = await restored(datastore, 0).catch((error: unknown) => assert.ok(isDamage(error), String(error)))
        // What a pack has beside its chunks is no matter of one backup.
        assert.equal(verified === undefined, typeof target !== 'string')
        if (typeof target === 'string') assert.deepEqual(differences(before, treeManifest(target)), [])
        await mend()
        await rm(join(path, 'suspects'), { recursive: true })
        mkdirSync(join(path, 'suspects'))
      }
    }
    await verifyDatastore(datastore)
  })

  test('names every chunk that is hit, and the next backup reads those files again and is whole', async () => {
    await using temporary = await temporaryDatastore()
    const { datastore } = temporary
    const tree = newFolder()
    for (const name of ['one', 'two', 'three']) writeFileSync(join(tree, name), randomBytes(100_000))
    await nextTick()
    await backUp(datastore, 0, unsettledSource({ root: tree }))
    const [pack = ''] = await packsOf(datastore.layout, at(0))
    await flip(datastore.layout.pack(asDigest(pack)), 5_000)
    await flip(datastore.layout.pack(asDigest(pack)), 150_000)
    {
      await using reader = await datastore.open(at(0))
      await assert.rejects(reader.verify(), /chunk [0-9a-f]{64} in pack .*chunk [0-9a-f]{64} in pack /)
      await assert.rejects(async () => {
        for await (const _ of tarOf(reader, 'rootfs', '/')) void _
      }, isDamage)
    }
    const second = await backUp(datastore, 1, unsettledSource({ root: tree }))
    assert.deepEqual([second.reusedFiles, second.newChunks], [0, 3])
    assert.deepEqual(differences(treeManifest(tree), treeManifest(await restored(datastore, 1))), [])
    await using reader = await datastore.open(at(1))
    await reader.verify()
  })

  test('is not gone by in the next backup, which then reads everything', async () => {
    await using temporary = await temporaryDatastore()
    const { datastore } = temporary
    const tree = newFolder()
    makeManyFiles(tree, 300)
    await nextTick()
    const first = await backUp(datastore, 0, unsettledSource({ root: tree }))
    const files = [datastore.layout.tree(at(0), 'rootfs'), datastore.layout.manifest(at(0))]
    for (const [time, file] of files.entries()) {
      const mend = await flip(file, 200)
      const next = await backUp(datastore, time + 1, unsettledSource({ root: tree }))
      assert.deepEqual([next.reusedFiles, next.readBytes, next.digest], [0, first.readBytes, first.digest])
      await datastore.remove(at(time + 1))
      await mend()
    }
    const next = await backUp(datastore, 9, unsettledSource({ root: tree }))
    assert.deepEqual([next.reusedFiles, next.newStoredBytes], [300, 0])
  })
})

test('packs stay for as long as a tree needs them, and go with the last', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore, path } = temporary
  const tree = newFolder()
  makeManyFiles(tree, 300)
  await nextTick()
  await backUp(datastore, 0, unsettledSource({ root: tree }))
  writeFileSync(join(tree, 'more'), randomBytes(200_000))
  await backUp(datastore, 1, unsettledSource({ root: tree }))
  await datastore.remove(at(0))
  await verifyDatastore(datastore)
  assert.deepEqual(differences(treeManifest(tree), treeManifest(await restored(datastore, 1))), [])
  await datastore.remove(at(1))
  assert.deepEqual((await filesBelow(path)).toSorted(), ['format', 'lock'])
})

suite('a tree made to do harm', () => {
  const outside = newFolder()
  const file = join(home, 'content')
  writeFileSync(file, 'planted')

  /** A source that tells whatever it likes. */
  function lying(of: Readonly<Record<string, readonly Partial<SourceEntry>[]>>): TreeSource {
    const entry = (more: Partial<SourceEntry>): SourceEntry => ({
      name: 'x',
      kind: 'file',
      mode: 0o644,
      uid: 0,
      gid: 0,
      identity: Buffer.alloc(identityBytes, 0),
      sizeBytes: 0,
      isSparse: false,
      changedSeconds: 0,
      changedNanoseconds: 1,
      target: () => '',
      attributes: () => Buffer.alloc(0),
      open: () => openSync(file, 'r'),
      ...more,
    })
    return {
      ids: '[]',
      settle: () => {},
      notes: () => ({ foreignIds: 0, mounts: 0, excluded: 0, apart: 0, examples: [] }),
      *folders() {
        for (const [path, entries] of Object.entries(of)) {
          yield {
            path,
            entries: () => [...(path === '' ? [{ name: '', kind: 'directory' as const }] : []), ...entries].map(entry),
          }
        }
      },
    }
  }

  const planted = { name: 'planted', sizeBytes: 7, identity: Buffer.concat([Buffer.from([7]), Buffer.alloc(39)]) }
  const link = (name: string, to: string) => ({ name, kind: 'symbolic link' as const, target: () => to })
  const another = (name: string, of: string) => ({ name, kind: 'hard link' as const, target: () => of })
  const folder = (name: string) => ({ name, kind: 'directory' as const })

  const harms: Readonly<Record<string, Parameters<typeof lying>[0]>> = {
    'through a link in a folder’s place': { '': [link('a', outside)], a: [planted] },
    'through a link on the way': {
      '': [folder('a')],
      a: [link('b', outside)],
      'a/b': [folder('c')],
      'a/b/c': [planted],
    },
    'through a relative link': { '': [link('a', '..')], a: [planted] },
    'up the tree': { '': [], '..': [planted] },
    'with a name that leads up': { '': [{ ...planted, name: '../planted' }] },
    'with an absolute folder': { '': [], [outside]: [planted] },
    'with a hard link through a link': { '': [link('a', outside), another('b', 'a/secret')] },
    'with a hard link to nothing': { '': [another('b', 'nothing')] },
    'with a hard link to a folder': { '': [folder('a'), another('b', 'a')] },
    'into a folder that is none': { '': [], a: [planted] },
    twice: { '': [planted, planted] },
  }
  for (const [how, of] of Object.entries(harms)) {
    test(`writes nothing outside: ${how}`, async () => {
      await using temporary = await temporaryDatastore()
      const { datastore } = temporary
      writeFileSync(join(outside, 'secret'), 'secret')
      await backUp(datastore, 0, lying(of))
      await assert.rejects(restored(datastore, 0), isDamage)
      assert.deepEqual(readdirSync(outside), ['secret'])
      assert.ok(!readdirSync(home).includes('planted'))
    })
  }

  test('is a small one that says it is large: its size is a hole, and no memory', async () => {
    await using temporary = await temporaryDatastore()
    const { datastore } = temporary
    const size = Buffer.alloc(identityBytes)
    size.writeBigUInt64LE(2n ** 44n, 0)
    await backUp(datastore, 0, lying({ '': [{ ...planted, identity: size }] }))
    await using reader = await datastore.open(at(0))
    const tree = reader.tree('rootfs')
    const entry = await tree.entry('planted')
    const parts: string[] = []
    for await (const part of tree.content(entry, { offset: 2 ** 43, length: 5 })) parts.push(part.toString('hex'))
    assert.deepEqual(parts, ['0000000000'])
  })

  test('has no manifest with names that lead outside, or sums beyond bounds', async () => {
    await using temporary = await temporaryDatastore()
    const { datastore } = temporary
    await backUp(datastore, 0, lying({ '': [planted] }))
    const text = await readFile(datastore.layout.manifest(at(0)), 'utf8')
    const change = (from: string, to: string) => seal(JSON.parse(JSON.stringify(unseal(text, 'it')).replace(from, to)))
    for (const [from, to] of [
      ['"name":"rootfs"', '"name":"../../etc/passwd"'],
      ['"name":"rootfs"', '"name":"rootfs","extra":1'],
      ['"entries":2', '"entries":1e300'],
      ['"format":2', '"format":1'],
      ['"format":2', '"format":3'],
      ['"trees":[', '"trees":[{"name":"rootfs"},'],
    ] as const) {
      assert.throws(
        () => parseManifest(change(from, to), 'the manifest'),
        (error) => isFault(error, 'damaged') || isFault(error, 'invalid'),
        to,
      )
    }
    assert.throws(
      () => parseManifest(change('"format":2', '"format":3'), 'it'),
      /has format 3; this version reads format 1 and 2/,
    )
  })
})
