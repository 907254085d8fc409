import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import type { ManifestDisk } from '#datastore/points/manifest.ts'
import { hasWrongRecord, madeHow } from './figures-of-a-backup.ts'

const base = { sizeBytes: 64 * MiB, digest: '', root: [], chunks: 8, newChunks: 1, newStoredBytes: 1_000 }
const disk = (name: string, dataBytes: number, reading?: ManifestDisk['reading']): ManifestDisk => ({
  ...base,
  name,
  dataBytes,
  ...(reading && { reading }),
})
const point = { namespace: '', type: 'vm', id: '100', time: 1_000 } as const
const facts = { wasRunning: true, mode: 'snapshot', heldMs: 0 }
const made = { point, finished: 1_030, trees: [], files: [] }

test('of a guest that went on: how long it was frozen and held, and what was read of which disk in which way', () => {
  const disks = [
    disk('scsi0', 8 * MiB, { how: 'changes', changedBytes: 3 * MiB, auditedChunks: 2 }),
    disk('scsi1', 5 * MiB, { how: 'scan' }),
  ]
  const freeze = { state: 'frozen', fileSystems: 2, durationMs: 120 }
  assert.deepEqual(madeHow({ ...made, disks, facts: { ...facts, heldMs: 15, freeze } }), {
    stored: 2_000,
    duration: 30,
    frozen: 1,
    freezeduration: 0.12,
    heldduration: 0.015,
    diskswhole: 1,
    diskschanged: 1,
    read: 8 * MiB + 256 * KiB,
    changed: 3 * MiB,
    audited: 2,
    audithits: 0,
  })
  assert.equal(hasWrongRecord({ disks }), false)
})

test('a bitmap that lied is an alarm, and its disk was read whole', () => {
  const disks = [disk('scsi0', 8 * MiB, { how: 'scan', reason: 'the record of changes is wrong', hits: 1 })]
  const freeze = { state: 'not-frozen', reason: 'the guest agent is not enabled for this' }
  assert.deepEqual(madeHow({ ...made, disks, facts: { ...facts, freeze } }), {
    stored: 1_000,
    duration: 30,
    frozen: 0,
    heldduration: 0,
    diskswhole: 1,
    diskschanged: 0,
    read: 8 * MiB,
    audithits: 1,
  })
  assert.equal(hasWrongRecord({ disks }), true)
})

test('nothing is made up of a guest that stood still, and of a backup from before it was written down', () => {
  const freeze = { state: 'not-frozen', reason: 'the guest is stopped' }
  for (const some of [{ ...facts, wasRunning: false, freeze }, { ...facts, mode: 'stop', freeze }, {}]) {
    assert.deepEqual(madeHow({ ...made, disks: [disk('scsi0', 8 * MiB)], facts: some }), {
      stored: 1_000,
      duration: 30,
    })
  }
})
