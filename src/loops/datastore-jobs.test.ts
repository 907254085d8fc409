/** Datastores get the jobs they should have once, and those run when they are due. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { DatastoreJobs } from '#cluster/datastore-jobs.ts'
import { openMemoryStore } from '#store/memory.ts'
import { type DatastoreJobDeps, offerJobs, type OfferDeps, runDueDatastoreJobs } from './datastore-jobs.ts'

test('a folder is looked at, what is guarded has a canary, and what somebody deleted does not come back', async () => {
  let now = Date.parse('2026-01-01T12:00:00Z')
  const clock: Clock = { now: () => now, monotonic: () => now, sleep: async () => {} }
  await using store = openMemoryStore()
  const datastoreJobs = new DatastoreJobs({ store, clock })
  const storages = [
    { name: 'local', type: 'dir', content: ['backup'] },
    { name: 'cloud', type: 's3', content: ['backup'] },
    { name: 'away', type: 'hakobune', content: ['backup'] },
    { name: 'isos', type: 'dir', content: ['iso'] },
  ]
  let id = 'one'
  const started: unknown[] = []
  const deps = {
    settings: { node: 'n' },
    clock,
    random: systemRandom,
    log: silentLog,
    machine: { timeZone: async () => 'UTC' },
    datastoreJobs,
    storage: { list: async () => storages },
    upkeep: {
      about: async (name: string) => {
        if (name === 'away') throw new Fault('unavailable', 'it is away')
        return { id, isGuarded: name === 'cloud' }
      },
    },
    tasks: {
      active: () => [],
      start: async ({ params }: { params: unknown }) => `UPID:${started.push(params)}`,
    },
  } as unknown as DatastoreJobDeps & OfferDeps
  assert.deepEqual(await offerJobs(deps), ['verify-local', 'canary-cloud'])
  assert.deepEqual(await offerJobs(deps), [])
  await datastoreJobs.delete('verify-local')
  assert.deepEqual(await offerJobs(deps), [])
  assert.deepEqual(await runDueDatastoreJobs(deps), [])
  // A day later, and late: it was off in the night.
  now += 24 * 3_600_000
  assert.deepEqual(await runDueDatastoreJobs(deps), ['UPID:1'])
  assert.deepEqual(await runDueDatastoreJobs(deps), [])
  assert.deepEqual(started, [{ job: 'canary-cloud', type: 'canary', storage: 'cloud', removesVanished: false }])
  // Another datastore of that name is another one.
  await datastoreJobs.forgetStorage('cloud')
  assert.deepEqual(await datastoreJobs.list(), [])
  id = 'two'
  assert.deepEqual(await offerJobs(deps), ['verify-local', 'canary-cloud'])
})
