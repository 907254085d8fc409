/** Cut off anywhere – killed, or out of space – a datastore holds whole backups or none, and gives its space back. */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { mkdtemp, readdir, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { disk, memorySource } from '../../test/fixtures/datastore.ts'
import { backUp, makeDatastore, point, restored, temporaryDatastore } from '../../test/fixtures/sealed-datastore.ts'
import { killedAtRandom } from '../../test/fixtures/killed-datastore.ts'
import { killAfter } from '../../test/fixtures/kill-after.ts'
import { contentAt } from '../../test/fixtures/seeded-disk.ts'
import type { OpenDatastore } from './datastore.ts'
import { collectGarbage } from './collect/garbage.ts'
import { verifyBackup, verifyPacks } from './verify/verify.ts'

const program = join(import.meta.dirname, '../../test/fixtures/sealed-loop.ts')

const kill = (path: string, first: number, made: number, id: string) =>
  killAfter(program, [JSON.stringify({ folder: path }), String(first), id], made)

async function checkWhole(open: OpenDatastore, path: string): Promise<number> {
  const points = await open.datastore.points()
  for (const one of points) {
    const { facts } = await open.body(one)
    await verifyBackup(open, one)
    for (const name of ['scsi0', 'scsi1']) {
      assert.ok((await restored(open, one, name)).equals(contentAt(Number(facts.time), name)), `${name} of ${one.time}`)
    }
  }
  // Once for what was condemned, and again for what that left.
  const collected = await collectGarbage(open)
  assert.equal(collected.waitsFor, undefined)
  const { damaged, packs } = await verifyPacks(open.datastore)
  assert.deepEqual(damaged, [])
  const named = new Set(open.index.segments.flatMap((segment) => segment.packs))
  assert.equal(packs, named.size, 'packs nobody knows')
  for (const folder of ['tmp', 'leases', 'condemned', 'suspects']) {
    assert.deepEqual(await readdir(join(path, folder)), [], folder)
  }
  for (const one of points) await verifyBackup(open, one)
  return points.length
}

test('killed at any moment, every backup that is there is whole and nothing is left over', async () => {
  await using temporary = await temporaryDatastore()
  let seen = 0
  for (let round = 0; round < 10; round += 1) {
    await kill(temporary.path, round * 1_000, randomInt(3), '100')
    seen += await checkWhole(await temporary.reopen(), temporary.path)
  }
  assert.ok(seen > 0, 'no backup was ever complete')
})

test('two write, and others prune, collect, copy and restore; of whoever is killed nothing that was made is lost', async () => {
  const home = await mkdtemp(join(tmpdir(), 'hako-killed-'))
  try {
    const [main, copy] = [{ folder: join(home, 'main') }, { folder: join(home, 'copy') }]
    const { compared } = await killedAtRandom({ main, copy, kills: 10 })
    assert.ok(compared > 0, 'no backup was ever complete')
  } finally {
    await rm(home, { recursive: true })
  }
})

test('on a full disk the backup fails, is not visible, and its space comes back', async () => {
  const path = await mkdtemp(join(tmpdir(), 'hako-full-'))
  const host = machine()
  await host.run(['mount', '-t', 'tmpfs', '-o', 'size=24m', 'hako-test', path])
  try {
    await using made = await makeDatastore(join(path, 'datastore'))
    const open = await made.reopen()
    const kept = disk('rrrr')
    await backUp(open, point(0), { scsi0: kept })
    await collectGarbage(open)
    const before = await statfs(path)
    const outcomes = new Set<string>()
    // Around the point where packs just fit and the segment, the manifest or a folder does not.
    for (const chunks of [176, 182, 184, 185, 186, 187, 188, 200, 400]) {
      const outcome = await tryBackup(open, Buffer.concat(Array.from({ length: chunks }, () => disk('r'))))
      outcomes.add(outcome)
      assert.equal((await open.datastore.points()).length, outcome === 'whole' ? 2 : 1)
      if (outcome === 'whole') await open.datastore.remove(point(1))
      await collectGarbage(open)
      const now = await statfs(path)
      assert.ok((before.bfree - now.bfree) * now.bsize < 64 * 1024, `space is missing after ${chunks} chunks`)
    }
    assert.deepEqual([...outcomes].toSorted(), ['full', 'whole'])
    assert.ok((await restored(await made.reopen(), point(0), 'scsi0')).equals(kept))
    await backUp(await made.reopen(), point(2), { scsi0: disk('rr') })
    // What is full to the last byte can be restored from.
    await host.run(['dd', 'if=/dev/zero', `of=${join(path, 'rest')}`, 'bs=4k'], { okCodes: [1] })
    assert.ok((await restored(await made.reopen(), point(0), 'scsi0')).equals(kept))
  } finally {
    await host.run(['umount', path])
    await rm(path, { recursive: true })
  }
})

async function tryBackup(open: OpenDatastore, content: Buffer): Promise<'whole' | 'full'> {
  try {
    await using writer = await open.begin(point(1))
    await writer.addDisk('scsi0', memorySource(content))
    await writer.addFile('guest.conf', 'x'.repeat(20_000))
    await writer.commit()
    return 'whole'
  } catch (error) {
    assert.ok(isFault(error, 'exhausted'), String(error))
    assert.match(error.message, /no space left/)
    return 'full'
  }
}
