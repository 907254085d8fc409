import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { backUp, makeDatastore, point, restored } from '../../../test/fixtures/sealed-datastore.ts'
import { smallDisk } from '../../../test/fixtures/small-disk.ts'
import { collectGarbage } from '../collect/garbage.ts'

test('garbage is collected where a disk is full to the last byte', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'hako-full-'))
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rm(folder, { recursive: true, force: true }))
  const disk = undo.use(await smallDisk(join(folder, 'disk'), 24 * MiB))
  const path = join(disk.path, 'datastore')
  const temporary = undo.use(await makeDatastore(path))
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
