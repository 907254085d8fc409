import assert from 'node:assert/strict'
import { test } from 'node:test'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { markBackups } from './prune.ts'

const backup = (vmid: number, day: number, more: object = {}, type: 'vm' | 'ct' = 'vm') => {
  const time = `2026-11-${String(day).padStart(2, '0')}T02:00:00Z`
  const volid = asVolumeId(`vault:backup/${type}/${vmid}/${time}`)
  return { volid, type, vmid: asVmid(vmid), ctime: Date.parse(time) / 1000, sizeBytes: 1, ...more }
}

test('guests are looked at one by one; what is protected or damaged stays and does not count', () => {
  const marked = markBackups(
    [
      backup(100, 1),
      backup(100, 2),
      backup(100, 3, { damage: 'a chunk is not what it was' }),
      backup(100, 4, { protected: true }),
      backup(100, 5),
      backup(101, 1),
    ],
    { 'keep-last': 2 },
    'UTC',
  )
  assert.deepEqual(
    marked.map(({ vmid, ctime, mark }) => [vmid, new Date(ctime * 1000).getUTCDate(), mark]),
    [
      [100, 1, 'remove'],
      [100, 2, 'keep'],
      [100, 3, 'keep'],
      [100, 4, 'protected'],
      [100, 5, 'keep'],
      [101, 1, 'keep'],
    ],
  )
})

test('an id that was a machine and became a container has two groups of backups', () => {
  const marked = markBackups([backup(100, 1), backup(100, 2, {}, 'ct'), backup(100, 3)], { 'keep-last': 1 }, 'UTC')
  assert.deepEqual(
    marked.map(({ type, mark }) => [type, mark]),
    [
      ['vm', 'remove'],
      ['ct', 'keep'],
      ['vm', 'keep'],
    ],
  )
})
