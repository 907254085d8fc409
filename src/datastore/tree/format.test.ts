/** A tree is restored by the reader that knows the description of the format alone. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { printRecoveryKey } from '../keys/slot.ts'
import { makeEveryEntry, makeManyFiles, nextTick, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { differences, treeManifest } from '../../../test/fixtures/tree-manifest.ts'

const program = join(import.meta.dirname, '../../../docs/formats/read-datastore-v2.ts')

test('a tree is listed and restored by a reader that knows the description of the format alone', async () => {
  await using temporary = await temporaryDatastore({ chunkBytes: 65_536 })
  const home = mkdtempSync(join(tmpdir(), 'hako-rescued-'))
  try {
    const tree = join(home, 'tree')
    mkdirSync(tree)
    await makeEveryEntry(tree)
    makeManyFiles(tree, 1_000)
    await nextTick()
    const open = await temporary.reopen()
    // The second is made of pieces of the first.
    for (const time of [0, 1]) {
      writeFileSync(join(tree, 'folder/new'), String(time))
      await using writer = await open.begin({ namespace: '', type: 'ct', id: '100', time: 1_795_000_000 + time })
      await writer.addTree('rootfs', unsettledSource({ root: tree }))
      await writer.commit()
    }
    const read = (...args: readonly string[]) =>
      spawnSync(process.execPath, [program, temporary.path, ...args], {
        input: `${printRecoveryKey(Buffer.alloc(32, 9))}\n`,
      })
    const name = read('list').stdout.toString().trim().split('\n').toSorted().at(-1) ?? ''
    const files = read('files', name, 'rootfs').stdout.toString().split('\n')
    assert.ok(files.includes('f 0664 0:0 1 /folder/new') && files.includes('f 4755 1000:0 2 /folder/deeper/su'))
    const target = join(home, 'rescued')
    const { status, stderr } = read('restore', name, 'rootfs', target)
    assert.equal(status, 0, stderr.toString())
    const leftOut = ['null', 'pipe', 'kept-socket', 'folder/disk', 'folder/null-too']
    assert.deepEqual(
      stderr
        .toString()
        .match(/(?<=left out: )[^,]*/g)
        ?.toSorted(),
      leftOut.toSorted(),
    )
    // What Node has calls for: no attributes, and times to the microsecond.
    const without = { without: ['attributes', 'mtime'] as const }
    const lost = differences(treeManifest(tree, without), treeManifest(target, without))
    assert.deepEqual(lost.map((line) => line.replace(/:.*/s, '')).toSorted(), leftOut.toSorted())
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
})
