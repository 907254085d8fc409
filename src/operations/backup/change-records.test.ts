import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemRandom } from '#base/random.ts'
import { parsePoint, printPoint } from '#datastore/point.ts'
import { type BackupInMaking, planRecords } from './change-records.ts'

const datastore = '3f0c5b1e-aaaa-4bbb-8ccc-1234567890ab'
const day = (number: number, guest = 100, namespace = '') =>
  parsePoint(`${namespace}vm/${guest}/2026-11-${String(number).padStart(2, '0')}T01:00:00Z`)
const backup = (number: number, earlier: readonly number[], store = datastore): BackupInMaking => {
  return { datastore: store, point: day(number), earlier: earlier.map((one) => day(one)) }
}
const about = { disk: 'scsi0', random: systemRandom }
/** Name of the record that begins with a backup. */
const record = (making: BackupInMaking, disk = 'scsi0') => planRecords([], making, { ...about, disk }).starts
const whole = (name: string) => ({ name, isWhole: true })

test('a disk without a record begins one, and no two are of one name', () => {
  const plan = planRecords([], backup(2, [1]), about)
  assert.deepEqual(
    { ...plan, starts: '' },
    { starts: '', since: undefined, reason: undefined, useless: [], replaced: [] },
  )
  assert.match(plan.starts, /^hakobune\/3f0c5b1e-[-0-9a-f]+\/vm\/100\/2026-11-02T01:00:00Z\/scsi0\/[0-9a-f]{8}$/)
  assert.notEqual(record(backup(2, [1])), plan.starts)
})

test('the newest record of a backup that is there is read by, whatever the disk was called then', () => {
  const [old, newer] = [record(backup(1, [])), record(backup(2, []), 'virtio0')]
  const plan = planRecords([old, newer, 'of somebody else'].map(whole), backup(3, [1, 2]), about)
  assert.deepEqual(plan.since, { point: day(2), disk: 'virtio0', record: newer })
  assert.deepEqual([plan.useless, plan.replaced.toSorted()], [[], [old, newer].toSorted()])
})

test('a record of a backup that never was, that is gone, or that QEMU did not keep is removed', () => {
  const [never, kept, broken] = [record(backup(9, [])), record(backup(1, [])), record(backup(2, []))]
  const found = [whole(never), whole(kept), { name: broken, isWhole: false }]
  const plan = planRecords(found, backup(10, [1, 2]), about)
  assert.equal(plan.since?.record, kept)
  assert.deepEqual(plan.useless.toSorted(), [never, broken].toSorted())
  const none = planRecords([whole(never)], backup(10, [1, 2]), about)
  assert.equal(none.reason, `backup ${printPoint(day(9))}, which it began with, is not there`)
  assert.equal(
    planRecords([{ name: broken, isWhole: false }], backup(3, [2]), about).reason,
    'QEMU ended without storing it',
  )
})

test('records of other datastores stay, a few; of other guests, and what cannot be read, none', () => {
  const others = Array.from({ length: 6 }, (_, number) => record(backup(1 + number, [], `other-${number}`)))
  const foreign = record({ datastore, point: day(1, 200), earlier: [] })
  const odd = ['hakobune/', 'hakobune/x/y', `hakobune/${datastore}/vm/100/yesterday/scsi0/1`]
  const plan = planRecords([...others, foreign, ...odd].map(whole), backup(9, [1]), about)
  assert.equal(plan.since, undefined)
  assert.deepEqual(plan.useless.toSorted(), [...others.slice(0, 2), foreign, ...odd].toSorted())
  assert.deepEqual(plan.replaced, [])
  const elsewhere = record({ datastore, point: day(1, 100, 'office/'), earlier: [] })
  assert.equal(planRecords([whole(elsewhere)], backup(2, [1]), about).since, undefined)
})
