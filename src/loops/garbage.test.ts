import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { BackupService } from '#backup/service.ts'
import { seconds } from '#base/clock.ts'
import { asVmid } from '#base/ids.ts'
import { openMemoryStore } from '#store/memory.ts'
import { confirmedKeys } from '../../test/fixtures/confirmed-keys.ts'
import { deps, disk, memorySource } from '../../test/fixtures/datastore.ts'
import { collectWhereDue } from './garbage.ts'

test('garbage is collected once a day, and within the hour where something waited for a writer that has ended', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-garbage-'))
  try {
    const keys = await confirmedKeys({ stateDir, node: 'lab' })
    const at = { datastorePath: async () => join(stateDir, 'datastore') }
    const backup = new BackupService({ ...deps, keys, storage: at })
    let passedMs = 0
    const clock = { ...deps.clock, now: () => deps.clock.now() + passedMs }
    const started: unknown[] = []
    let isKilled = false
    let ended = 0
    const tasks = {
      start: async ({ params }: { readonly params: unknown }) => {
        if (!isKilled) ended = seconds(clock)
        return String(started.push(params))
      },
    }
    const datastoreJobs = { collections: async () => new Map(ended === 0 ? [] : [['local', { ended }]]) }
    const storage = { list: async () => [{ name: 'local', content: ['backup'] }] }
    const needs = { ...deps, clock, backup, datastoreJobs, tasks, storage, store: openMemoryStore() } as never
    const due = async (hours: number) => {
      passedMs += hours * 3_600_000
      return (await collectWhereDue(needs)).length
    }
    // Nobody has written there yet.
    assert.equal(await due(100), 0)
    const first = await backup.begin('local', { vmid: asVmid(100) })
    await first.writer.addDisk('scsi0', memorySource(disk('rr')))
    await first.writer.commit()
    await first.writer[Symbol.asyncDispose]()
    assert.deepEqual([await due(100), await due(1), await due(22), await due(2)], [1, 0, 0, 1])
    const second = await backup.begin('local', { vmid: asVmid(101) })
    await backup.remove(first.volid)
    assert.match((await backup.collect('local')).waitsFor ?? '', /a backup that is being made/)
    assert.equal(await due(48), 0)
    await second.writer[Symbol.asyncDispose]()
    assert.deepEqual([await due(0), await due(0.5), await due(0.6)], [1, 0, 1])
    assert.deepEqual(started[0], { storage: 'local' })
    // Of one whose process died nobody has to wait a day for the next.
    await backup.collect('local')
    await backup.collect('local')
    isKilled = true
    assert.deepEqual([await due(25), await due(0.5), await due(0.6)], [1, 0, 1])
    isKilled = false
    assert.deepEqual([await due(1.1), await due(2)], [1, 0])
  } finally {
    await rm(stateDir, { recursive: true })
  }
})
