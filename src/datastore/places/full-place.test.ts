import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { openBelow } from '../../../test/fixtures/open-below.ts'
import { backUp, makeDatastore, point, restored } from '../../../test/fixtures/sealed-datastore.ts'
import { smallDisk } from '../../../test/fixtures/small-disk.ts'
import { collectGarbage } from '../collect/garbage.ts'

/** A datastore on a disk of a few mebibytes. */
async function onSmallDisk() {
  const folder = await mkdtemp(join(tmpdir(), 'hako-full-'))
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rm(folder, { recursive: true, force: true }))
  const disk = undo.use(await smallDisk(join(folder, 'disk'), 24 * MiB))
  const path = join(disk.path, 'datastore')
  const temporary = undo.use(await makeDatastore(path))
  const made = undo.move()
  return { disk, path, temporary, [Symbol.asyncDispose]: () => made[Symbol.asyncDispose]() }
}

/** Not a file that was begun is there, and none is open: one that is forgotten so ends the process some time later. */
async function assertNothingBegun(path: string): Promise<void> {
  assert.deepEqual([await readdir(join(path, 'tmp')), openBelow(join(path, 'tmp'))], [[], []])
}

test('garbage is collected where a disk is full to the last byte', async () => {
  await using made = await onSmallDisk()
  const { disk, path, temporary } = made
  const contents = [0, 1, 2].map(() => randomBytes(4 * MiB))
  const open = await temporary.reopen()
  for (const [time, content] of contents.entries()) await backUp(open, point(time), { scsi0: content })
  await disk.fill()

  await assert.rejects(backUp(open, point(3), { scsi0: randomBytes(MiB) }), (fault) => isFault(fault, 'exhausted'))
  for (const time of [0, 1]) await open.datastore.remove(point(time))
  const { freedBytes } = await collectGarbage(open)
  assert.ok(freedBytes > 8 * MiB, `${freedBytes} bytes came back`)
  assert.ok((await disk.freeBytes()) > 7 * MiB)
  assert.deepEqual(await restored(await temporary.reopen(), point(2), 'scsi0'), contents[2])
  assert.ok((await stat(join(path, 'reserve'))).size >= MiB, 'room is set aside again')
})

test('a backup for whose last pack there is no room leaves nothing that was begun', async () => {
  await using made = await onSmallDisk()
  const { disk, path, temporary } = made
  // It is kept in memory until the pack ends.
  await disk.fill(128 * KiB)
  await assert.rejects(backUp(await temporary.reopen(), point(0), { scsi0: randomBytes(256 * KiB) }), (fault) =>
    isFault(fault, 'exhausted'),
  )
  await assertNothingBegun(path)
})

test('packs that cannot be written anew on a full disk take no room, and are open nowhere', async () => {
  await using made = await onSmallDisk()
  const { disk, path, temporary } = made
  const content = randomBytes(8 * MiB)
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  const living = content.subarray(0, 4.5 * MiB)
  await backUp(await temporary.reopen(), point(1), { scsi0: living })
  const open = await temporary.reopen()
  await open.datastore.remove(point(0))
  await disk.fill(2 * MiB)
  await assert.rejects(collectGarbage(open), (fault) => isFault(fault, 'exhausted'))
  await assertNothingBegun(path)
  await disk.empty()
  assert.equal((await collectGarbage(open)).rewrittenPacks, 1)
  assert.deepEqual(await restored(await temporary.reopen(), point(1), 'scsi0'), living)
})
