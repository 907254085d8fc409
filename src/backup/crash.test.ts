/** Cut off anywhere – killed, or out of space – a datastore holds whole backups or none. */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { mkdtemp, readdir, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import {
  at,
  backUp,
  deps,
  disk,
  memorySource,
  memoryTarget,
  temporaryDatastore,
} from '../../test/fixtures/datastore.ts'
import { killAfter } from '../../test/fixtures/kill-after.ts'
import { contentAt } from '../../test/fixtures/seeded-disk.ts'
import type { Datastore } from './datastore.ts'
import { openDatastore } from './datastore.ts'
import { restoreDisk } from './restore.ts'
import { allPacks, packsOf } from './sweep.ts'
import { verifyDatastore } from './verify-datastore.ts'

const program = join(import.meta.dirname, '../../test/fixtures/backup-loop.ts')

const kill = (path: string, first: number, made: number, id: string) =>
  killAfter(program, [path, String(first), id], made)

async function tryBackup(datastore: Datastore, content: Buffer): Promise<'whole' | 'full'> {
  await using writer = await datastore.begin(at(1))
  try {
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

async function checkWhole(datastore: Datastore): Promise<number> {
  await verifyDatastore(datastore)
  const used = new Set<string>()
  for (const { id, manifest } of await datastore.list()) {
    assert.ok(manifest)
    for (const pack of await packsOf(datastore.layout, id)) used.add(pack)
    await using reader = await datastore.open(id)
    for (const name of ['scsi0', 'scsi1']) {
      const target = memoryTarget(reader.disk(name).sizeBytes)
      await restoreDisk(reader, name, target)
      assert.ok(target.content.equals(contentAt(Number(manifest.facts.time), name)), `${name} of ${id.time}`)
    }
    const tree = reader.tree('rootfs')
    const contentOf = async (path: string) => {
      const parts: Buffer[] = []
      for await (const part of tree.content(await tree.entry(path))) parts.push(part)
      return Buffer.concat(parts)
    }
    assert.equal((await contentOf('folder/time')).toString(), String(manifest.facts.time))
    assert.ok((await contentOf('changing')).equals(contentAt(Number(manifest.facts.time), 'scsi0')))
  }
  assert.deepEqual(await readdir(datastore.layout.writers()), [], 'leftovers of writers')
  for await (const pack of allPacks(datastore.layout)) assert.ok(used.has(pack), `pack ${pack} is used by nobody`)
  return (await datastore.list()).length
}

test('killed at any moment, every backup that is there is whole and nothing is left over', async () => {
  await using temporary = await temporaryDatastore()
  let seen = 0
  for (let round = 0; round < 25; round += 1) {
    await kill(temporary.path, round * 1_000, randomInt(3), '100')
    seen += await checkWhole(await temporary.reopen())
  }
  assert.ok(seen > 0, 'no backup was ever complete')
})

test('of two writers one is killed; the other goes on, and nothing is left over', async () => {
  await using temporary = await temporaryDatastore()
  for (let round = 0; round < 5; round += 1) {
    await Promise.all([
      kill(temporary.path, round * 1_000, randomInt(2), '100'),
      kill(temporary.path, round * 1_000, 2 + randomInt(2), '101'),
    ])
    await checkWhole(await temporary.reopen())
  }
})

test('on a full disk the backup fails, is not visible, and its space comes back', async () => {
  const path = await mkdtemp(join(tmpdir(), 'hako-full-'))
  const host = machine()
  await host.run(['mount', '-t', 'tmpfs', '-o', 'size=24m', 'hako-test', path])
  try {
    const datastore = await openDatastore(join(path, 'datastore'), deps, { create: true })
    const kept = disk('rrrr')
    await backUp(datastore, at(0), { scsi0: kept })
    const before = await statfs(path)
    const outcomes = new Set<string>()
    // Around the point where packs just fit and the index, the manifest or a directory does not.
    for (const chunks of [176, 182, 184, 185, 186, 187, 188, 200, 400]) {
      const outcome = await tryBackup(datastore, Buffer.concat(Array.from({ length: chunks }, () => disk('r'))))
      outcomes.add(outcome)
      assert.equal((await datastore.list()).length, outcome === 'whole' ? 2 : 1)
      if (outcome === 'whole') await datastore.remove(at(1))
      const now = await statfs(path)
      assert.ok((before.bfree - now.bfree) * now.bsize < 64 * 1024, `space is missing after ${chunks} chunks`)
    }
    assert.deepEqual([...outcomes].sort(), ['full', 'whole'])
    assert.equal((await datastore.list()).length, 1)
    await backUp(datastore, at(2), { scsi0: disk('rr') })
    await verifyDatastore(await openDatastore(join(path, 'datastore'), deps))
  } finally {
    await host.run(['umount', path])
    await rm(path, { recursive: true })
  }
})
