/** The stand-alone reader, which knows the description of the format alone, after all that happens to a datastore. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import { disk } from '../../../test/fixtures/datastore.ts'
import { backUp, point, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { FolderPlace } from '../places/folder-place.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { withSecrets } from '../keys/key-file.ts'
import { rotated } from '../keys/keyring.ts'
import { printPoint } from '../point.ts'
import { repairIndex } from '../tidy/repair.ts'
import { printRecoveryKey } from '../keys/slot.ts'
import { syncDatastore } from './sync.ts'

const chunk = 128 * KiB

test('the reader restores also after rotation, rewritten packs, a new index, and from a copy; deltas in its way', async () => {
  await using temporary = await temporaryDatastore()
  const content = Buffer.alloc(2_000 * chunk)
  for (let at = 0; at < 2_000; at += 4) content.set(randomBytes(64), at * chunk)
  await backUp(await temporary.reopen(), point(0), { scsi0: Buffer.concat([content, disk('rrrrrrrrrrrr')]) })
  const admin = await temporary.reopen()
  await admin.datastore.putKeyFile(
    withSecrets(systemRandom, admin.unlocked, rotated(admin.keyring.secrets, systemRandom)),
  )
  for (let time = 1; time < 4; time += 1) {
    content.set(randomBytes(64), time * 37 * chunk)
    await backUp(await temporary.reopen(), point(time), { scsi0: content })
  }
  const open = await temporary.reopen()
  await open.datastore.remove(point(0))
  assert.ok((await collectGarbage(open)).rewrittenPacks > 0)
  await rm(join(temporary.path, 'segments'), { recursive: true })
  await repairIndex(await temporary.reopen())
  const out = await mkdtemp(join(tmpdir(), 'hako-rescued-'))
  try {
    const copy = join(out, 'copy')
    await using place = new FolderPlace(copy, systemRandom)
    await place.prepare()
    await syncDatastore(open.datastore, place, open.datastore.deps)
    const program = join(import.meta.dirname, '../../../docs/formats/read-datastore-v2.ts')
    const key = `${printRecoveryKey(Buffer.alloc(32, 9))}\n`
    const beside = join(out, 'beside')
    await machine().run(['cp', '--archive', temporary.path, beside])
    for (const from of [temporary.path, copy, beside]) {
      const target = join(out, basename(from))
      const args = [program, from, 'restore', printPoint(point(3)), 'scsi0', `${target}.raw`]
      const { status, stderr } = spawnSync(process.execPath, args, { input: key })
      assert.equal(status, 0, stderr.toString())
      assert.ok((await readFile(`${target}.raw`)).equals(content), from)
    }
  } finally {
    await rm(out, { recursive: true })
  }
})
