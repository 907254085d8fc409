/** Trees of files in backups: everything a file system keeps comes back, whoever's ids they have. */
import assert from 'node:assert/strict'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import type { IdMap } from '#host/lxc/id-map.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { deps } from '../../../test/fixtures/datastore.ts'
import { secret, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { makeEveryEntry, nextTick, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { differences, treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import { openDatastore, type OpenDatastore } from '../datastore.ts'
import { FolderPlace } from '../places/folder-place.ts'
import { syncDatastore } from '../copy/sync.ts'
import type { RestorePoint } from '../point.ts'
import { verifyBackup } from '../verify/verify.ts'
import type { TreeReader } from './reader.ts'
import { type RestoredTree, type RestoreTreeOptions, restoreTree } from './restore.ts'
import { treeSource, type TreeSourceOptions } from './source.ts'
import type { AddedTree } from '../backup/trees.ts'

const host = machine()
const at = (time: number): RestorePoint => ({ namespace: '', type: 'ct', id: '100', time: 1_795_000_000 + time })
const unprivileged: IdMap = [
  { kind: 'uid', inside: 0, outside: 100_000, count: 65_536 },
  { kind: 'gid', inside: 0, outside: 100_000, count: 65_536 },
]

const home = mkdtempSync(join(tmpdir(), 'hako-trees-'))
after(() => removeTree(host, home))
let folders = 0
function newFolder(): string {
  const path = join(home, `folder-${(folders += 1)}`)
  mkdirSync(path)
  return path
}

async function backUp(open: OpenDatastore, time: number, options: TreeSourceOptions): Promise<AddedTree> {
  await using writer = await open.begin(at(time))
  const added = await writer.addTree('rootfs', unsettledSource(options))
  await writer.commit()
  return added
}

async function restore(
  open: OpenDatastore,
  time: number,
  options: Omit<RestoreTreeOptions, 'target'> = {},
): Promise<RestoredTree & { target: string }> {
  await using reader = await open.open(at(time))
  const target = newFolder()
  return { ...(await restoreTree(reader, 'rootfs', { ...options, target })), target }
}

async function read(open: OpenDatastore, time: number, act: (tree: TreeReader) => Promise<void>): Promise<void> {
  await using reader = await open.open(at(time))
  await act(reader.tree('rootfs'))
}

const attributes = async (path: string) =>
  (await host.run(['getcap', '-n', path])).stdout + (await host.run(['getfacl', '-n', '-p', path])).stdout

suite('a tree with every kind of entry', () => {
  test('comes back bit for bit, and once more from what was taken over', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    await makeEveryEntry(tree)
    await nextTick()
    const before = treeManifest(tree)
    await using writer = await open.begin(at(0))
    const first = await writer.addTree('rootfs', treeSource({ root: tree }))
    await writer.commit()
    assert.deepEqual([first.entries, first.reusedFiles], [before.length, 0])
    const again = await backUp(open, 1, { root: tree })
    assert.deepEqual([again.readBytes, again.newStoredBytes, again.digest], [0, 0, first.digest])
    assert.equal(again.reusedFiles, again.files)
    for (const time of [0, 1]) {
      const { target, leftOut, attributesLeftOut } = await restore(open, time)
      assert.deepEqual(differences(before, treeManifest(target)), [])
      assert.deepEqual([leftOut, attributesLeftOut], [0, 0])
    }
    assert.equal((await verifyBackup(open, at(1))).bytes, first.dataBytes)
  })

  test('goes to an unprivileged container and back, with its ids, access lists and capabilities', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    await makeEveryEntry(tree, { withDevices: false })
    await backUp(open, 0, { root: tree })
    const inside = await restore(open, 0, { idMap: unprivileged })
    const plain = { without: ['attributes'] as const }
    const shifted = treeManifest(inside.target, { ...plain, idOf: (id) => id - 100_000 })
    assert.deepEqual(differences(treeManifest(tree, plain), shifted), [])
    assert.match(await attributes(join(inside.target, 'folder/ping')), /cap_net_raw=ep \[rootid=100000\]/)
    assert.match(await attributes(join(inside.target, 'plain')), /^group:101234:r--$/m)
    assert.match(await attributes(join(inside.target, 'folder')), /^default:user:101234:rwx$/m)

    await backUp(open, 1, { root: inside.target, idMap: unprivileged })
    const back = await restore(open, 1)
    assert.deepEqual(differences(treeManifest(tree), treeManifest(back.target)), [])
  })

  test('goes to an unprivileged container without its devices, and says how many', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    await makeEveryEntry(tree)
    await host.run(['mknod', join(tree, 'removed'), 'c', '0', '0'])
    await backUp(open, 0, { root: tree })
    const { target, leftOut } = await restore(open, 0, { idMap: unprivileged })
    assert.equal(leftOut, 3)
    const without = { without: ['attributes', 'mtime', 'uid', 'gid'] as const }
    assert.deepEqual(
      differences(treeManifest(tree, without), treeManifest(target, without)).map((line) => line.split(':')[0]),
      ['folder/disk', 'folder/null-too', 'null'],
    )
  })
})

suite('a tree that is read', () => {
  test('leaves out what is excluded, does not enter what is mounted in it, and makes foreign ids nobody’s', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    for (const name of ['tmp', 'mnt', 'cache', 'thumbs']) mkdirSync(join(tree, name))
    for (const name of ['tmp/gone', 'keep', 'cache/gone.pid', 'cache/keep', 'foreign', 'thumbs/gone']) {
      writeFileSync(join(tree, name), name)
    }
    writeFileSync(join(tree, 'thumbs/CACHEDIR.TAG'), 'Signature: 8a477f597d28d172789f06886806bc55\n# a cache\n')
    // The name alone says nothing.
    writeFileSync(join(tree, 'cache/CACHEDIR.TAG'), 'x'.repeat(100))
    await host.run(['chown', '-hR', '100000:100000', tree])
    await host.run(['chown', '12:100007', join(tree, 'foreign')])
    await host.run(['mount', '-t', 'tmpfs', 'hako-test', join(tree, 'mnt')])
    try {
      writeFileSync(join(tree, 'mnt/gone'), 'elsewhere')
      const { notes } = await backUp(open, 0, {
        root: tree,
        idMap: unprivileged,
        excludes: ['/tmp/?*', '*.pid'],
        leavesCaches: true,
      })
      const { examples, ...counts } = notes
      // The file that is another's, and the root of what is mounted.
      assert.deepEqual(counts, { foreignIds: 2, mounts: 1, excluded: 3, apart: 0 })
      assert.deepEqual(examples.toSorted(), [
        'excluded: cache/gone.pid',
        'excluded: thumbs',
        'excluded: tmp/gone',
        'foreignIds: foreign',
        'foreignIds: mnt',
        'mounts: mnt',
      ])
    } finally {
      await host.run(['umount', join(tree, 'mnt')])
    }
    await read(open, 0, async (of) => {
      const paths: string[] = []
      for await (const { path } of of.entries()) paths.push(path)
      assert.deepEqual(paths, [
        '',
        'cache',
        'foreign',
        'keep',
        'mnt',
        'thumbs',
        'tmp',
        'cache/CACHEDIR.TAG',
        'cache/keep',
      ])
      const { uid, gid } = await of.entry('foreign')
      assert.deepEqual([uid, gid], [65_534, 7])
    })
  })

  test('is read again only where something has changed', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    for (let number = 0; number < 3_000; number += 1) {
      if (number % 100 === 0) mkdirSync(join(tree, `d${number}`))
      writeFileSync(join(tree, `d${number - (number % 100)}/f${number}`), `content ${number}`.repeat(number % 50))
    }
    writeIslands(join(tree, 'islands'), 1_300)
    await nextTick()
    const first = await backUp(open, 0, { root: tree })
    writeFileSync(join(tree, 'd500/f523'), 'changed')
    rmSync(join(tree, 'd100'), { recursive: true })
    renameSync(join(tree, 'd300/f301'), join(tree, 'd300/a'))
    mkdirSync(join(tree, 'd500/new'))
    writeFileSync(join(tree, 'd500/new/file'), 'new')
    const second = await backUp(open, 1, { root: tree })
    // A renamed file has another time of change.
    assert.equal(second.files - second.reusedFiles, 3)
    assert.equal(second.readBytes, 'changed'.length + 'new'.length + statSync(join(tree, 'd300/a')).size)
    assert.ok(second.newStoredBytes < 100_000, `${second.newStoredBytes} bytes for three files`)
    assert.notEqual(second.digest, first.digest)
    const { target } = await restore(open, 1)
    assert.deepEqual(differences(treeManifest(tree), treeManifest(target)), [])
  })

  test('is not trusted where it changed in the tick it was read in', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    {
      await using writer = await open.begin(at(0))
      const source = treeSource({ root: tree })
      // After the moment it is told, and before it is read.
      source.settle = () => writeFileSync(join(tree, 'fresh'), 'just now')
      await writer.addTree('rootfs', source)
      await writer.commit()
    }
    await nextTick()
    assert.equal((await backUp(open, 1, { root: tree })).reusedFiles, 0)
    assert.equal((await backUp(open, 2, { root: tree })).reusedFiles, 1)
  })

  test('is read beside its running guest first, so that what counts is short', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    await makeEveryEntry(tree)
    await nextTick()
    await using writer = await open.begin(at(0))
    const ahead = await writer.readAheadTree('rootfs', unsettledSource({ root: tree }))
    writeFileSync(join(tree, 'folder/exact'), 'shorter')
    rmSync(join(tree, 'plain'))
    writeFileSync(join(tree, 'plain'), 'its other names have the old text')
    const added = await writer.addTree('rootfs', treeSource({ root: tree }))
    await writer.commit()
    assert.equal(ahead.files - 2, added.reusedFiles)
    assert.ok(added.readBytes < 100, `${added.readBytes} bytes were read`)
    // What the first pass stored is stored for this backup as well.
    assert.ok(ahead.newChunks > 0 && added.newChunks >= ahead.newChunks && added.newStoredBytes > ahead.newStoredBytes)
    assert.deepEqual(await readdir(join(temporary.path, 'leases')), [])
    const { target } = await restore(open, 0)
    assert.deepEqual(differences(treeManifest(tree), treeManifest(target)), [])
    // The next backup goes by the committed one.
    assert.equal((await backUp(open, 1, { root: tree })).readBytes, added.readBytes)
  })

  test('may be changed by others meanwhile, and nothing outside of it is read', async () => {
    await using temporary = await temporaryDatastore()
    const tree = newFolder()
    const outside = newFolder()
    writeFileSync(join(outside, 'secret'), 'secret')
    for (const name of ['one', 'two', 'three']) mkdirSync(join(tree, name))
    writeFileSync(join(tree, 'two/secret'), 'harmless')
    const source = unsettledSource({ root: tree })
    const swapping: typeof source = {
      ids: source.ids,
      settle: () => source.settle(),
      notes: () => source.notes(),
      *folders() {
        for (const folder of source.folders()) {
          yield folder
          if (folder.path !== '') continue
          // It was a folder when its name was read.
          rmSync(join(tree, 'two'), { recursive: true })
          symlinkSync(outside, join(tree, 'two'))
        }
      },
    }
    await using writer = await (await temporary.reopen()).begin(at(0))
    assert.equal((await writer.addTree('rootfs', swapping)).files, 0)
    await writer.commit()
  })
})

suite('a tree in a backup', () => {
  test('is looked at without being restored: one entry, a folder, a part of a file', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    await makeEveryEntry(tree)
    await backUp(open, 0, { root: tree })
    await read(open, 0, async (of) => {
      const names = async (path: string) => {
        const found: string[] = []
        for await (const { name } of of.list(path)) found.push(name)
        return found
      }
      const text = async (path: string, range?: { offset: number; length: number }) => {
        const parts: Buffer[] = []
        for await (const part of of.content(await of.entry(path), range)) parts.push(part)
        return Buffer.concat(parts).toString('latin1')
      }
      assert.deepEqual(await names('folder/deeper'), ['and deeper', 'plain-again', 'su'])
      assert.deepEqual(await names('empty'), [])
      assert.deepEqual(await names('folder-two'), ['file'])
      assert.equal(await text('folder/plain-too'), 'text')
      assert.equal(await text('large'), (await readFile(join(tree, 'large'))).toString('latin1'))
      assert.equal(await text('large', { offset: 131_070, length: 10 }), text70())
      assert.equal(await text('holes', { offset: 2 ** 25 - 2, length: 5 }), '\0\0\x01\x01\x01')
      const { kind, mode, modified } = await of.entry('folder/deeper/su')
      assert.deepEqual([kind, mode, modified.nanoseconds > 0], ['file', 0o4755, true])
      assert.deepEqual((await of.entry('folder/disk')).device, { major: 259, minor: 1_048_575 })
      await assert.rejects(of.entry('folder/none'), (error) => isFault(error, 'missing'))
      await assert.rejects(names('plain'), /is no folder/)
      await assert.rejects(text('pipe'), /has no content: it is a pipe/)
      await assert.rejects(text('plain', { offset: 2, length: 3 }), /outside of 'plain'/)
      const below: string[] = []
      for await (const { path } of of.entries('folder')) below.push(path)
      assert.equal(below[0], 'folder')
      assert.ok(below.includes('folder/deeper/su') && !below.includes('folder-two'))
    })
  })

  test('goes where nothing is yet, under a map that reaches as far as its ids', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    writeFileSync(join(tree, 'file'), 'x')
    await host.run(['chown', '70000:5', join(tree, 'file')])
    await backUp(open, 0, { root: tree })
    await using reader = await open.open(at(0))
    const target = newFolder()
    await assert.rejects(
      restoreTree(reader, 'rootfs', { target, idMap: unprivileged }),
      (error) => isFault(error, 'invalid') && /files of uid 70000, which the id map/.test(error.message),
    )
    writeFileSync(join(target, 'there'), 'before')
    await assert.rejects(restoreTree(reader, 'rootfs', { target }), /is not empty/)
    assert.deepEqual(await readdir(target), ['there'])
    await assert.rejects(restoreTree(reader, 'mp0', { target }), (error) => isFault(error, 'missing'))
  })

  test('is in a copy of the datastore, too, which is made without a key', async () => {
    await using temporary = await temporaryDatastore()
    const { datastore } = await temporary.reopen()
    const tree = newFolder()
    await makeEveryEntry(tree)
    await backUp(await temporary.reopen(), 0, { root: tree })
    await using place = new FolderPlace(join(home, 'copy'), systemRandom)
    await place.prepare()
    await syncDatastore(datastore, place, deps)
    const copy = await (await openDatastore(place, deps)).unlock(secret)
    await verifyBackup(copy, at(0))
    assert.deepEqual(differences(treeManifest(tree), treeManifest((await restore(copy, 0)).target)), [])
  })

  test('is made and restored until somebody stops it', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const tree = newFolder()
    for (let number = 0; number < 50; number += 1) writeFileSync(join(tree, `f${number}`), `${number}`)
    {
      await using writer = await open.begin(at(0))
      await assert.rejects(
        writer.addTree('rootfs', unsettledSource({ root: tree }), { signal: AbortSignal.abort() }),
        (error) => isFault(error, 'aborted'),
      )
    }
    assert.deepEqual(await open.datastore.points(), [])
    const added = await backUp(open, 0, { root: tree })
    const seen: number[] = []
    await using reader = await open.open(at(0))
    const onProgress = ({ fraction }: { fraction: number }) => void seen.push(fraction)
    await restoreTree(reader, 'rootfs', { target: newFolder(), onProgress })
    assert.equal(seen.at(-1), 1)
    await assert.rejects(restoreTree(reader, 'rootfs', { target: newFolder(), signal: AbortSignal.abort() }), (error) =>
      isFault(error, 'aborted'),
    )
    assert.equal(added.entries, 51)
  })
})

/** Many small pieces of data with holes between them: more than one record holds. */
function writeIslands(path: string, count: number): void {
  const fd = openSync(path, 'w')
  for (let number = 0; number < count; number += 1)
    writeSync(fd, Buffer.alloc(4_096, number), 0, 4_096, number * 16_384)
  closeSync(fd)
}

function text70(): string {
  return Buffer.alloc(700_001, 'large and compressible ').toString('latin1', 131_070, 131_080)
}
