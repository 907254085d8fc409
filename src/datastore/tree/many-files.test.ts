/**
 * Very many files and every kind of entry among them, from a privileged container to an unprivileged one and back, bit
 * for bit. `bench/file-backup.ts` does the same with 100,000.
 */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { machine } from '#host/exec.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { makeEveryEntry, makeManyFiles, thereAndBack } from '../../../test/fixtures/every-entry.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { verifyBackup } from '../verify/verify.ts'
import { type EntryKind, identityBytes } from './record.ts'
import type { TreeSource } from './source.ts'

test('10,000 files and every kind of entry come back from an unprivileged container as they went, in bounded memory', async () => {
  const home = mkdtempSync(join(tmpdir(), 'hako-many-'))
  try {
    await using temporary = await temporaryDatastore()
    const tree = join(home, 'tree')
    mkdirSync(tree)
    makeManyFiles(tree, 10_000)
    mkdirSync(join(tree, 'every'))
    await makeEveryEntry(join(tree, 'every'), { withDevices: false })
    const open = await temporary.reopen()
    assert.deepEqual(await thereAndBack(open, tree, home), [])
    for (const point of await open.datastore.points()) await verifyBackup(open, point)
  } finally {
    await removeTree(machine(), home)
  }
})

test('hundreds of thousands of entries are written without all of them in memory', async () => {
  await using temporary = await temporaryDatastore()
  await using writer = await (
    await temporary.reopen()
  ).begin({ namespace: '', type: 'ct', id: '101', time: 1_795_000_000 })
  const before = process.memoryUsage().rss
  let most = 0
  const onProgress = () => void (most = Math.max(most, process.memoryUsage().rss))
  const { entries } = await writer.addTree('rootfs', manyEntries(3_000, 100), { onProgress })
  await writer.commit()
  assert.equal(entries, 303_001)
  assert.ok(most > 0 && most - before < 200 * 2 ** 20, `${Math.round((most - before) / 2 ** 20)} MiB more`)
})

test('who collects garbage looks at each piece once, however many backups share it', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  let [pieces, changed] = [0, 0]
  for (let time = 0; time < 8; time += 1) {
    await using writer = await open.begin({ namespace: '', type: 'ct', id: '101', time: 1_795_000_000 + time })
    const tree = await writer.addTree('rootfs', manyEntries(40, 200, { other: time }))
    await writer.commit()
    pieces = tree.pieces
    if (time > 0) changed = Math.max(changed, tree.newStoredBytes)
  }
  // A folder is another one: its piece, its list, and the list of those.
  assert.ok(pieces > 15 && changed < 20_000, `${pieces} pieces, ${changed} bytes`)
  const { chunks } = open
  let reads = 0
  const read = chunks.read.bind(chunks)
  chunks.read = async (...of) => {
    reads += 1
    return read(...of)
  }
  await collectGarbage(open)
  assert.ok(reads >= pieces && reads < 3 * pieces, `${reads} reads for ${pieces} pieces`)
})

/** Empty files as a source would tell of them. */
function manyEntries(folders: number, files: number, { other }: { readonly other?: number } = {}): TreeSource {
  const entry = {
    name: '',
    kind: 'directory' as EntryKind,
    mode: 0o755,
    uid: 0,
    gid: 0,
    identity: Buffer.alloc(identityBytes),
    sizeBytes: 0,
    isSparse: false,
    changedSeconds: 5,
    changedNanoseconds: 1,
    target: () => '',
    attributes: () => Buffer.alloc(0),
    open: () => undefined,
  }
  const numbered = function* (letter: string, kind: EntryKind, count: number) {
    for (let number = 0; number < count; number += 1) {
      yield Object.assign(entry, { kind, name: `${letter}${String(number).padStart(6, '0')}` })
    }
  }
  const root = function* () {
    yield Object.assign(entry, { kind: 'directory', name: '' })
    yield* numbered('d', 'directory', folders)
  }
  return {
    ids: '[]',
    settle: () => {},
    notes: () => ({ foreignIds: 0, mounts: 0, excluded: 0, apart: 0, examples: [] }),
    *folders() {
      yield { path: '', entries: root }
      for (let number = 0; number < folders; number += 1) {
        yield {
          path: `d${String(number).padStart(6, '0')}`,
          entries: () => numbered(number === other ? 'g' : 'f', 'file', files),
        }
      }
    },
  }
}
