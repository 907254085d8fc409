import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import type { ConfigChange, Options } from '../config.ts'
import { isOwned } from '../config.ts'
import { planChange } from './change.ts'

const vmid = asVmid(100)
const disk = 'local:100/vm-100-disk-0.raw'
const change = (some: Partial<ConfigChange>): ConfigChange => ({ set: {}, delete: [], revert: [], ...some })
const plan = (options: Options, some: Partial<ConfigChange>, how: { running?: Options; force?: boolean } = {}) =>
  planChange(vmid, { options, digest: '', ...(how.running ? { running: how.running } : {}) }, change(some), how.force)

function wrongFields(act: () => unknown): string[] {
  try {
    act()
  } catch (fault) {
    if (isFault(fault, 'invalid')) return Object.keys(fault.fields ?? {}).toSorted()
    throw fault
  }
  return []
}

test('a removed disk is kept as unused, and destroyed only by force or when that is removed', () => {
  assert.deepEqual(plan({ scsi0: disk }, { delete: ['scsi0'] }), { options: { unused0: disk }, make: [], free: [] })
  assert.deepEqual(plan({ scsi0: disk }, { delete: ['scsi0'] }, { force: true }), {
    options: {},
    make: [],
    free: [disk],
  })
  assert.deepEqual(plan({ unused0: disk }, { delete: ['unused0'] }), { options: {}, make: [], free: [disk] })
})

test('what is removed leaves the boot order, and an order that is given names what is there', () => {
  const options = { scsi0: disk, ide2: 'none,media=cdrom', boot: 'order=scsi0;ide2' }
  assert.deepEqual(plan(options, { delete: ['scsi0'] }).options, {
    ide2: 'none,media=cdrom',
    unused0: disk,
    boot: 'order=ide2',
  })
  assert.equal(plan(options, { delete: ['scsi0', 'ide2'] }).options.boot, 'order=')
  assert.equal(plan(options, { delete: ['scsi0', 'boot'] }).options.boot, undefined)
  assert.equal(plan({ ...options, boot: 'cdn' }, { delete: ['scsi0'] }).options.boot, 'cdn')
  // Left behind by something else: no reason to refuse another change.
  assert.equal(plan({ boot: 'order=scsi7;net0', net0: 'virtio' }, { set: { cores: '2' } }).options.boot, 'order=net0')
  assert.deepEqual(
    wrongFields(() => plan(options, { delete: ['scsi0'], set: { boot: 'order=scsi0' } })),
    ['boot'],
  )
})

test('a disk that another takes the place of is kept as unused', () => {
  const { options, make } = plan({ scsi0: disk, unused0: 'local:100/vm-100-disk-7.raw' }, { set: { scsi0: 'local:8' } })
  assert.deepEqual(options, { scsi0: 'local:8', unused0: 'local:100/vm-100-disk-7.raw', unused1: disk })
  assert.deepEqual(make, ['scsi0'])
})

test('changing a disk’s settings does not make it unused', () => {
  const { options } = plan({ scsi0: `${disk},size=1G` }, { set: { scsi0: `${disk},size=1G,discard=on` } })
  assert.equal(options.unused0, undefined)
})

test('a volume that is attached is no longer listed as unused', () => {
  assert.deepEqual(plan({ unused3: disk }, { set: { virtio0: disk } }).options, { virtio0: disk })
  assert.deepEqual(
    wrongFields(() => plan({ scsi0: disk }, { set: { virtio0: disk } })),
    ['virtio0'],
  )
})

test('a disc is never kept or destroyed', () => {
  const options = { ide2: 'local:iso/a.iso,media=cdrom' }
  assert.deepEqual(plan(options, { delete: ['ide2'] }, { force: true }), { options: {}, make: [], free: [] })
})

test('a volume of another guest is let go, not destroyed', () => {
  const options = { scsi0: 'local:101/vm-101-disk-0.raw' }
  assert.deepEqual(plan(options, { delete: ['scsi0'] }, { force: true }).free, [])
  assert.equal(isOwned(asVolumeId('local:vm-100-disk-0'), vmid), true)
  assert.equal(isOwned(asVolumeId('local:vm-1000-disk-0'), vmid), false)
})

test('a volume the running guest still uses is not destroyed', () => {
  const running = { scsi0: disk }
  assert.throws(
    () => plan({ scsi0: disk }, { delete: ['scsi0'] }, { running, force: true }),
    /still in use by drive scsi0/,
  )
  assert.throws(() => plan({ unused0: disk }, { delete: ['unused0'] }, { running }), /still in use by drive scsi0/)
  // It was unused when the guest started, and is no more in use for that.
  assert.deepEqual(plan({ unused0: disk }, { delete: ['unused0'] }, { running: { unused0: disk } }).free, [disk])
})

test('protection keeps disks', () => {
  assert.throws(() => plan({ scsi0: disk, protection: '1' }, { delete: ['scsi0'] }), /can't remove disk 'scsi0'/)
})

test('every wrong option is named, whatever is wrong with it', () => {
  assert.deepEqual(
    wrongFields(() => plan({}, { set: { nonsense: '1', cores: 'x', memory: '1' } })),
    ['cores', 'memory', 'nonsense'],
  )
  assert.deepEqual(
    wrongFields(() => plan({}, { set: { unused0: disk } })),
    ['unused0'],
  )
  assert.deepEqual(
    wrongFields(() => plan({}, { set: { cores: '2' }, delete: ['cores'] })),
    ['cores'],
  )
  assert.deepEqual(
    wrongFields(() => plan({}, { delete: ['nonsense'] })),
    ['delete'],
  )
  assert.deepEqual(
    wrongFields(() => plan({}, { set: { balloon: '2048' } })),
    ['balloon'],
  )
  assert.deepEqual(
    wrongFields(() => plan({}, { set: { vcpus: '3', cores: '2' } })),
    ['vcpus'],
  )
  for (const [field, options] of Object.entries({
    numa0: { numa: '1', numa0: 'cpus=0,memory=100' },
    numa1: { numa: '1', cores: '2', numa0: 'cpus=0,memory=256', numa1: 'cpus=0-1,memory=256' },
    memory: { numa: '1', hotplug: 'memory', memory: '1200' },
    hotplug: { hotplug: 'network,nonsense' },
    hugepages: { hugepages: '1024', memory: '512' },
    ivshmem: { ivshmem: 'size=3' },
    usb0: { usb0: 'usb3=1' },
    usb1: { usb1: 'spice' },
    usb2: { usb2: 'SPICE,usb3=1', vga: 'serial0', serial0: 'socket' },
    vga: { vga: 'none,clipboard=vnc' },
    spice_enhancements: { spice_enhancements: 'videostreaming=some' },
    hostpci0: { hostpci0: 'mapping=a,host=01:00.0' },
    tpmstate0: { tpmstate0: 'local:1,format=qcow2' },
    efidisk0: { efidisk0: 'none' },
    arch: { arch: 'aarch64' },
    cpu: { cpu: 'max,guest-phys-bits=40' },
  })) {
    assert.deepEqual(
      wrongFields(() => plan({}, { set: options as unknown as Options })),
      [field],
    )
  }
  assert.deepEqual(
    wrongFields(() => plan({}, { set: { boot: 'order=scsi0' } })),
    ['boot'],
  )
  assert.deepEqual(
    wrongFields(() => plan({}, { set: { vga: 'serial0' } })),
    ['vga'],
  )
  assert.deepEqual(
    wrongFields(() => plan({}, { set: { net0: 'virtio,tag=5' } })),
    ['net0'],
  )
})

test('what needs SPICE is taken with a display of SPICE', () => {
  const usb0 = 'spice'
  for (const vga of ['qxl', 'qxl4,memory=64', 'virtio']) {
    assert.equal(plan({}, { set: { vga, usb0 } }).options.usb0, usb0, vga)
  }
  assert.deepEqual(
    wrongFields(() => plan({ vga: 'qxl', usb0 }, { delete: ['vga'] })),
    ['usb0'],
  )
})

test('a drive is refused for what it cannot be', () => {
  const bad: Options = {
    scsi0: 'none',
    virtio0: 'local:iso/a.iso,media=cdrom',
    ide0: 'local:8,media=cdrom',
    sata0: 'local:0',
    scsi1: `${disk},import-from=local:101/vm-101-disk-0.raw`,
    scsi2: 'cdrom,media=cdrom',
  }
  for (const [name, text] of Object.entries(bad))
    assert.deepEqual(
      wrongFields(() => plan({}, { set: { [name]: text } })),
      [name],
    )
  assert.deepEqual(
    wrongFields(() => plan({}, { set: { ide2: 'none,media=cdrom' } })),
    [],
  )
})

test('the oldest spelling of a cdrom drive is ide2', () => {
  assert.deepEqual(plan({}, { set: { cdrom: 'none' } }).options, { ide2: 'none,media=cdrom' })
})
