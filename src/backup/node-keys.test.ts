import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { namingFullStorage } from '#storage/full.ts'
import { deps } from '../../test/fixtures/datastore.ts'
import { smallDisk } from '../../test/fixtures/small-disk.ts'
import { NodeKeys } from './node-keys.ts'

test('a key there is no space for is not blamed on the storage it was wanted for', async () => {
  await using undo = new AsyncDisposableStack()
  const root = await mkdtemp(join(tmpdir(), 'hako-keys-'))
  undo.defer(() => rm(root, { recursive: true }))
  const disk = undo.use(await smallDisk(join(root, 'state'), MiB))
  const keys = new NodeKeys({ settings: { stateDir: disk.path, node: 'lab' }, ...deps })
  await disk.fill()
  const availableBytes = () => Promise.resolve(MiB)
  await assert.rejects(
    namingFullStorage({ storage: 'big', what: 'a backup', availableBytes }, () => keys.own()),
    (fault) => isFault(fault, 'exhausted') && /^no space left for the key of this node '.*state/.test(fault.message),
  )
  await disk.empty()
  const secret = await keys.own()
  assert.deepEqual(await keys.own(), secret)
})
