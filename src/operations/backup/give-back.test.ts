import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, missing } from '#base/fault.ts'
import { giveBackSpace } from './give-back.ts'

test('a storage that never held a backup has nothing to give back, and nothing is said of it', async () => {
  const said: string[] = []
  const endsIn = (fault: Error) => ({ collect: (): Promise<never> => Promise.reject(fault) })
  await giveBackSpace(endsIn(missing('datastore', '/srv/datastore')), 'local', (line) => said.push(line))
  assert.equal(said.length, 0)
  await giveBackSpace(endsIn(new Fault('unavailable', 'not mounted')), 'local', (line) => said.push(line))
  assert.deepEqual(said, ["space on storage 'local' is not given back yet: not mounted"])
  await assert.rejects(
    giveBackSpace(endsIn(new Error('a mistake of ours')), 'local', () => {}),
    /a mistake of ours/,
  )
})
