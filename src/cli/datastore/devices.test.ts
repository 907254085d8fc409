/** Sources and targets of `hako datastore` that are no quiet files. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { good, hako } from '../../../test/fixtures/datastore-command.ts'
import { loopDisk } from '../../../test/fixtures/loop-disk.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-devices-'))
after(() => rm(home, { recursive: true }))

test('a block device is backed up to its last sector, and never written to by a restore', async () => {
  const [store, key, recovery] = ['store', 'key', 'recovery'].map((name) => join(home, name)) as [
    string,
    string,
    string,
  ]
  await writeFile(key, randomBytes(32))
  await writeFile(recovery, good('init', store, '--key-file', key))
  good('key', 'confirm', store, '--recovery-key-file', recovery)
  await using disk = await loopDisk(9 * MiB + 512)
  const content = Buffer.concat([randomBytes(2 * MiB), Buffer.alloc(6 * MiB), randomBytes(MiB + 512)])
  await writeFile(disk.path, content, { flag: 'r+' })
  const name = good('backup', store, disk.path, '--id', 'device', '--key-file', key, '-o', 'id').trim()
  const target = join(home, 'restored.raw')
  good('restore', store, name, target, '--key-file', key)
  assert.ok((await readFile(target)).equals(content))
  const refused = hako('restore', store, name, disk.path, '--key-file', key)
  assert.equal(refused.code, 2)
  assert.match(refused.err, /is a block device, and may hold what is wanted\nNext: Write over it by intent/)
  assert.ok((await readFile(disk.path)).equals(content))
  const gone = hako('backup', store, join(home, 'never.raw'), '--key-file', key)
  assert.match(gone.err, /never\.raw' does not exist/)
})
