import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { GiB, MiB } from '#base/bytes.ts'
import { throttleOf } from './drive-limits.ts'
import { driveNameParts, driveOf, printDrive, wishOf } from './drive.ts'

test('what a drive asks for is read from its file', () => {
  const wish = (text: string) => wishOf(driveOf('scsi0', text))
  assert.deepEqual(wish('local:8'), { kind: 'allocate', storage: 'local', sizeBytes: 8 * GiB })
  assert.deepEqual(wish('local:0.5,format=qcow2'), { kind: 'allocate', storage: 'local', sizeBytes: GiB / 2 })
  assert.deepEqual(wish('local:0,import-from=/root/a.raw'), { kind: 'import', storage: 'local', source: '/root/a.raw' })
  assert.deepEqual(wish('file=local:100/vm-100-disk-0.raw'), { kind: 'volume', volid: 'local:100/vm-100-disk-0.raw' })
  assert.deepEqual(wish('none,media=cdrom'), { kind: 'empty' })
  assert.deepEqual(wish('/dev/sdx'), { kind: 'path', path: '/dev/sdx' })
})

test('names of drives are those of the buses, and no others', () => {
  assert.deepEqual(driveNameParts('scsi30'), { bus: 'scsi', index: 30 })
  for (const name of ['scsi31', 'scsi01', 'scsi', 'ide4', 'sata6', 'virtio16', 'scsihw', 'net0', 'toString']) {
    assert.equal(driveNameParts(name), undefined, name)
  }
})

test('a drive printed and read again is the same', () => {
  const value = fc.record(
    {
      size: fc.constantFrom('1G', '512M', '10486K'),
      cache: fc.constantFrom('none', 'writeback', 'unsafe'),
      discard: fc.constantFrom('on', 'ignore'),
      ssd: fc.constantFrom('1', '0'),
      iothread: fc.constantFrom('1', '0'),
      serial: fc.constantFrom('a%20b', 'x'),
      iops: fc.integer({ min: 0, max: 1e6 }).map(String),
      mbps_rd: fc.constantFrom('0.5', '100'),
    },
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(value, fc.constantFrom('local:100/vm-100-disk-0.raw', 'fast:vm-100-disk-1'), (values, file) => {
      const text = [file, ...Object.entries(values).map(([key, one]) => `${key}=${one}`)].join(',')
      const drive = driveOf('scsi0', text)
      assert.deepEqual(driveOf('scsi0', printDrive(drive)), drive)
    }),
  )
})

test('rate limits become those of QEMU, in bytes', () => {
  assert.equal(throttleOf(driveOf('scsi0', 'local:100/vm-100-disk-0.raw')), undefined)
  assert.deepEqual(throttleOf(driveOf('scsi0', 'local:100/vm-100-disk-0.raw,mbps_rd=2,mbps_rd_max=4,iops=100')), {
    id: 'scsi0',
    bps: 0,
    bps_rd: 2 * MiB,
    bps_rd_max: 4 * MiB,
    bps_wr: 0,
    iops: 100,
    iops_rd: 0,
    iops_wr: 0,
  })
})
