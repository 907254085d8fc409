/** A tree in a backup that was damaged, or made to do harm: it is named, contained, and never becomes wrong files. */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { filesBelow } from '../../../test/fixtures/datastore.ts'
import { temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { makeManyFiles, nextTick, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { differences, treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import type { OpenDatastore } from '../datastore.ts'
import { ChunkWriter } from '../chunks/chunk-writer.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { kinds } from '../format.ts'
import { manifestName, openManifest, parseManifest, printManifest } from '../points/manifest.ts'
import type { RestorePoint } from '../point.ts'
import { repairIndex } from '../tidy/repair.ts'
import { verifyBackup } from '../verify/verify.ts'
import { verifyDatastore } from '../verify/verify-datastore.ts'
import { identityBytes } from './record.ts'
import { parseList } from './piece-list.ts'
import { restoreTree } from './restore.ts'
import type { SourceEntry, TreeSource } from './source.ts'
import { tarOf } from './tar.ts'
import type { AddedTree } from '../backup/trees.ts'

const at = (time: number): RestorePoint => ({ namespace: '', type: 'ct', id: '100', time: 1_795_000_000 + time })
const home = mkdtempSync(join(tmpdir(), 'hako-trees-'))
after(() => removeTree(machine(), home))
let folders = 0
function newFolder(): string {
  const path = join(home, `folder-${(folders += 1)}`)
  mkdirSync(path)
  return path
}

async function backUp(open: OpenDatastore, time: number, source: TreeSource): Promise<AddedTree> {
  await using writer = await open.begin(at(time))
  const added = await writer.addTree('rootfs', source)
  await writer.commit()
  return added
}

async function restored(open: OpenDatastore, time: number): Promise<string> {
  await using reader = await open.open(at(time))
  const target = newFolder()
  await restoreTree(reader, 'rootfs', { target })
  return target
}

async function flip(path: string, offset: number): Promise<() => Promise<void>> {
  const content = await readFile(path)
  const changed = Buffer.from(content)
  changed[offset] = (changed[offset] ?? 0) ^ (1 << randomInt(8))
  await writeFile(path, changed)
  return () => writeFile(path, content)
}

const isDamage = (error: unknown) => isFault(error, 'damaged')

/** Packs of content, the largest first. */
async function packsOf(path: string): Promise<string[]> {
  const packs = (await filesBelow(path)).filter((one) => one.startsWith('packs'))
  return packs.toSorted((one, other) => statSync(join(path, other)).size - statSync(join(path, one)).size)
}

suite('a tree with a turned bit', () => {
  test('is found by verifying, wherever the bit is, and what is restored is right or a fault', async () => {
    await using temporary = await temporaryDatastore()
    const { path, reopen } = temporary
    const tree = newFolder()
    makeManyFiles(tree, 200)
    writeFileSync(join(tree, 'large'), randomBytes(300_000))
    const before = treeManifest(tree)
    await backUp(await reopen(), 0, unsettledSource({ root: tree }))
    const files = (await filesBelow(path)).filter((one) => !/^(?:tmp|leases|marks|reserve)/.test(one))
    assert.deepEqual([...new Set(files.map((file) => file.replace(/\/.*/s, '')))].toSorted(), [
      'backups',
      'format',
      'keys',
      'packs',
      'segments',
    ])
    for (const file of files) {
      const whole = await readFile(join(path, file))
      const { length } = whole
      const isIndex = file.startsWith('segments')
      const places = [0, 9, 20, length - 1, length - 30, ...Array.from({ length: 3 }, () => randomInt(length))]
      for (const place of places) {
        const mend = await flip(join(path, file), place)
        const open = await reopen().catch((error: unknown) => assert.ok(isDamage(error), String(error)))
        if (open) {
          const named = file.startsWith('backups') ? /backup ct\/100\// : new RegExp(file.slice(-64))
          // Packs say all that is in the index.
          if (isIndex) assert.match((await verifyDatastore(open)).mended.join('\n'), named)
          else
            await assert.rejects(verifyDatastore(open), (error) => isDamage(error) && named.test(String(error)), file)
          const target = await restored(open, 0).catch((error: unknown) => {
            assert.ok(isDamage(error) && !isIndex, String(error))
          })
          if (typeof target === 'string') assert.deepEqual(differences(before, treeManifest(target)), [])
        } else assert.match(file, /^(?:format|keys)/)
        if (!isIndex) await mend()
        for (const folder of ['suspects', 'marks', ...(isIndex ? ['segments'] : [])]) {
          rmSync(join(path, folder), { recursive: true })
          mkdirSync(join(path, folder))
        }
        if (isIndex) writeFileSync(join(path, file), whole)
      }
    }
    await verifyDatastore(await reopen())
  })

  test('names every chunk that is hit, and the next backup reads those files again and is whole', async () => {
    await using temporary = await temporaryDatastore()
    const { path, reopen } = temporary
    const tree = newFolder()
    for (const name of ['one', 'two', 'three']) writeFileSync(join(tree, name), randomBytes(100_000))
    await nextTick()
    await backUp(await reopen(), 0, unsettledSource({ root: tree }))
    const [pack = ''] = await packsOf(path)
    for (const place of [5_000, 150_000]) await flip(join(path, pack), place)
    {
      const open = await reopen()
      await assert.rejects(verifyBackup(open, at(0)), /chunk [0-9a-f]{32}: .*chunk [0-9a-f]{32}: /)
      await using reader = await open.open(at(0))
      await assert.rejects(async () => {
        for await (const _ of tarOf(reader, 'rootfs', '/')) void _
      }, isDamage)
    }
    const open = await reopen()
    const second = await backUp(open, 1, unsettledSource({ root: tree }))
    assert.deepEqual([second.reusedFiles, second.newChunks], [0, 3])
    for (const time of [0, 1]) {
      assert.deepEqual(differences(treeManifest(tree), treeManifest(await restored(await reopen(), time))), [])
      await verifyBackup(await reopen(), at(time))
    }
  })

  test('is not gone by in the next backup, which then reads what it cannot tell', async () => {
    await using temporary = await temporaryDatastore()
    const { path, reopen } = temporary
    const tree = newFolder()
    makeManyFiles(tree, 300)
    await nextTick()
    const first = await backUp(await reopen(), 0, unsettledSource({ root: tree }))
    const catalogue = (await packsOf(path)).at(-1) ?? ''
    for (const [time, file] of [catalogue, manifestName(at(0))].entries()) {
      const mend = await flip(join(path, file), 200)
      const next = await backUp(await reopen(), time + 1, unsettledSource({ root: tree }))
      assert.ok(next.reusedFiles < 300 && next.readBytes > first.readBytes / 10, `${next.reusedFiles} files`)
      assert.equal(next.digest, first.digest)
      await (await reopen()).datastore.remove(at(time + 1))
      await mend()
    }
    const next = await backUp(await reopen(), 9, unsettledSource({ root: tree }))
    assert.deepEqual([next.reusedFiles, next.newStoredBytes], [300, 0])
  })
})

test('chunks stay for as long as a tree needs them, and go with the last; a lost index is made anew', async () => {
  await using temporary = await temporaryDatastore()
  const { path, reopen } = temporary
  const open = await reopen()
  const tree = newFolder()
  makeManyFiles(tree, 300)
  await nextTick()
  await backUp(open, 0, unsettledSource({ root: tree }))
  writeFileSync(join(tree, 'more'), randomBytes(200_000))
  await backUp(open, 1, unsettledSource({ root: tree }))
  await open.datastore.remove(at(0))
  const { removedChunks } = await collectGarbage(open)
  // The manifest, the piece and the lists of the root are others now.
  assert.ok(removedChunks > 0 && removedChunks < 10, `${removedChunks} chunks`)
  rmSync(join(path, 'segments'), { recursive: true })
  mkdirSync(join(path, 'segments'))
  await repairIndex(await reopen())
  await verifyDatastore(await reopen())
  await verifyBackup(await reopen(), at(1))
  assert.deepEqual(differences(treeManifest(tree), treeManifest(await restored(await reopen(), 1))), [])
  await open.datastore.remove(at(1))
  await collectGarbage(await reopen())
  assert.deepEqual(await packsOf(path), [])
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
      const open = await temporary.reopen()
      writeFileSync(join(outside, 'secret'), 'secret')
      await backUp(open, 0, lying(of))
      await assert.rejects(restored(open, 0), isDamage)
      assert.deepEqual(readdirSync(outside), ['secret'])
      assert.ok(!readdirSync(home).includes('planted'))
    })
  }

  test('is a small one that says it is large: its size is a hole, and no memory', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    const size = Buffer.alloc(identityBytes)
    size.writeBigUInt64LE(2n ** 44n, 0)
    await backUp(open, 0, lying({ '': [{ ...planted, identity: size }] }))
    await using reader = await open.open(at(0))
    const tree = reader.tree('rootfs')
    const entry = await tree.entry('planted')
    const parts: string[] = []
    for await (const part of tree.content(entry, { offset: 2 ** 43, length: 5 })) parts.push(part.toString('hex'))
    assert.deepEqual(parts, ['0000000000'])
  })

  test('has no manifest with names that lead outside, or sums beyond bounds', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    await backUp(open, 0, lying({ '': [planted] }))
    const body = await open.body(at(0))
    const head = { point: at(0), pointInTime: '2026-11-20T10:00:00.000Z', finished: 1_795_000_000 }
    const changed = (from: string, to: string) => {
      const forged = JSON.parse(JSON.stringify(body).replace(from, to)) as typeof body
      const text = printManifest(open.keyring, systemRandom, head, forged)
      return openManifest(open.keyring, parseManifest(text, at(0)))
    }
    const root = body.trees[0]?.root[0] ?? ''
    changed('"entries":2', '"entries":3')
    for (const [from, to] of [
      ['"name":"rootfs"', '"name":"../../etc/passwd"'],
      ['"name":"rootfs"', '"name":"rootfs","extra":1'],
      ['"entries":2', '"entries":1e300'],
      ['"trees":[', '"trees":[{"name":"rootfs"},'],
      [`["${root}"]`, '["../../etc/passwd"]'],
      [`["${root}"]`, JSON.stringify(Array.from({ length: 257 }, () => root))],
    ] as const) {
      assert.throws(() => changed(from, to), isDamage, to)
    }
  })

  test('is not read by lists that are none, out of order, of something else or of too much', async () => {
    await using temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    await backUp(open, 0, lying({ '': [planted] }))
    const [tree] = (await open.body(at(0))).trees
    assert.ok(tree)
    const { content: top } = await open.chunks.read(Buffer.from(tree.root[0] ?? '', 'hex'), kinds.tree)
    assert.equal(parseList(top).length, 1)
    const twice = Buffer.concat([top, top.subarray(16)])
    twice.writeUInt32LE(2, 4)
    twice.writeUInt32LE(2, 8)
    const none = Buffer.from(top)
    none.writeUInt32LE(0, 32)
    for (const list of [
      twice,
      none,
      top.subarray(0, 16),
      top.subarray(0, 20),
      Buffer.alloc(0),
      Buffer.alloc(2 ** 20),
    ]) {
      assert.throws(() => parseList(list), /^Error: (?:it|its) /)
    }
    // A list in place of a piece, a piece in place of a list, and one more piece than there are.
    const [list] = parseList(top)
    const { content: pieces } = await open.chunks.read(list?.id ?? Buffer.alloc(16), kinds.tree)
    const [piece] = parseList(pieces)
    const more = Buffer.from(top)
    more.writeUInt32LE(2 ** 31, 8)
    more.writeUInt32LE(2 ** 31, 32)
    const instead = (of: Buffer, id: Buffer | undefined) =>
      Buffer.concat([of.subarray(0, 16), id ?? top, of.subarray(32)])
    for (const [time, forged] of [
      instead(top, piece?.id),
      instead(top, Buffer.from(list?.id.map((byte) => byte ^ 1) ?? [])),
      more,
    ].entries()) {
      await using writer = await open.begin(at(time + 1))
      await writer.addTree('rootfs', lying({ '': [planted] }))
      const body = await writer.commit()
      const facts = body.trees[0]
      assert.ok(facts)
      await forge(open, at(time + 1), forged, facts.pieces)
      await assert.rejects(restored(open, time + 1), isDamage)
      await assert.rejects(verifyBackup(open, at(time + 1)), isDamage)
      // Who collects has no use for numbers of pieces, and what names a piece another backup needs is needed.
      if (time === 1) await assert.rejects(collectGarbage(open), isDamage)
      await open.datastore.remove(at(time + 1))
    }
  })
})

/** Signs a manifest whose tree has that list of lists. */
async function forge(open: OpenDatastore, point: RestorePoint, top: Buffer, pieces: number): Promise<void> {
  const { place, deps } = open.datastore
  const { keyring, index } = open
  await using chunks = new ChunkWriter({ place, keyring, index, random: deps.random, level: 1 })
  const id = keyring.idOf(kinds.tree, top)
  await chunks.put(id, kinds.tree, top)
  await chunks.flush()
  const body = await open.body(point)
  const head = await open.datastore.manifest(point)
  const digest = keyring.digestOf(pieces, id).toString('hex')
  const trees = body.trees.map((tree) => ({ ...tree, root: [id.toString('hex')], digest }))
  await place.remove(manifestName(point))
  await place.put(manifestName(point), Buffer.from(printManifest(keyring, deps.random, head, { ...body, trees })))
}
