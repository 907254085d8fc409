/** Killed while trees are written, a datastore holds whole backups or none, and gives its space back. */
import assert from 'node:assert/strict'
import { createHash, randomInt } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeManyFiles } from '../../../test/fixtures/every-entry.ts'
import { killAfter } from '../../../test/fixtures/kill-after.ts'
import { temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { verifyBackup } from '../verify/verify.ts'
import { verifyDatastore } from '../verify/verify-datastore.ts'
import { restoreTree } from './restore.ts'

const program = join(import.meta.dirname, '../../../test/fixtures/tree-loop.ts')

test('killed at any moment, every tree that is there is whole, and what was not finished goes', async () => {
  await using temporary = await temporaryDatastore()
  const home = mkdtempSync(join(tmpdir(), 'hako-killed-'))
  try {
    const tree = join(home, 'tree')
    makeManyFiles(tree, 200)
    let seen = 0
    for (let round = 0; round < 6; round += 1) {
      await killAfter(program, [temporary.path, tree, String(round * 1_000)], randomInt(3))
      const open = await temporary.reopen()
      for (const point of await open.datastore.points()) {
        await using reader = await open.open(point)
        const target = join(home, `restored-${(seen += 1)}`)
        mkdirSync(target)
        await restoreTree(reader, 'rootfs', { target })
        const found = createHash('sha256').update(treeManifest(target).join('\n')).digest('hex')
        assert.equal(found, reader.body.facts.manifest)
        rmSync(target, { recursive: true })
        await verifyBackup(open, point)
      }
      assert.equal((await collectGarbage(open)).waitsFor, undefined)
      await verifyDatastore(open)
      for (const folder of ['tmp', 'leases', 'condemned', 'suspects']) {
        assert.deepEqual(readdirSync(join(temporary.path, folder)), [], folder)
      }
    }
    assert.ok(seen > 0, 'no backup was ever complete')
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
})
