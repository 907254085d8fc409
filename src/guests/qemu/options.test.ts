import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'
import { bootOrderOf } from './boot.ts'
import { completed, requireOptions, unique } from './new-guest.ts'
import { withMac } from './nic.ts'
import { isRootOnly, optionParams, optionsFrom, optionsToReply, privilegeFor } from './options.ts'

test('every option takes a right, or root', () => {
  for (const name of Object.keys(optionParams)) {
    const right = privilegeFor(name, undefined)
    assert.ok(right !== undefined || isRootOnly(name, undefined), name)
  }
  assert.equal(privilegeFor('ide2', 'none,media=cdrom'), 'VM.Config.CDROM')
  assert.equal(privilegeFor('ide2', 'local:8'), 'VM.Config.Disk')
  assert.equal(isRootOnly('serial0', 'socket'), false)
  assert.equal(isRootOnly('serial0', '/dev/ttyS0'), true)
  assert.deepEqual([isRootOnly('usb0', '1d6b:0002'), isRootOnly('usb0', 'mapping=stick')], [true, false])
  assert.deepEqual([isRootOnly('hostpci0', '01:00.0'), isRootOnly('hostpci0', 'mapping=card')], [true, false])
  assert.deepEqual(
    ['efidisk0', 'tpmstate0', 'freeze', 'numa3'].map((name) => privilegeFor(name, 'x')),
    ['VM.Config.Disk', 'VM.Config.Disk', 'VM.PowerMgmt', 'VM.Config.CPU'],
  )
})

test('checked parameters become text, and text becomes typed again', () => {
  const options = optionsFrom({
    node: 'n',
    vmid: 100,
    cores: 2,
    onboot: true,
    acpi: false,
    cpulimit: 1.5,
    memory: '64',
    archive: 'x',
  })
  assert.deepEqual(options, { cores: '2', onboot: '1', acpi: '0', cpulimit: '1.5', memory: '64' })
  assert.deepEqual(optionsToReply(options), { cores: 2, onboot: true, acpi: false, cpulimit: 1.5, memory: '64' })
})

test('a card keeps its MAC address, or gets one', () => {
  assert.equal(
    withMac('net0', 'virtio=bc:24:11:00:00:01,bridge=vmbr0', systemRandom),
    'virtio=BC:24:11:00:00:01,bridge=vmbr0',
  )
  assert.match(
    withMac('net0', 'bridge=vmbr0,model=e1000', systemRandom),
    /^e1000=BC:24:11(:[0-9A-F]{2}){3},bridge=vmbr0$/,
  )
  assert.match(withMac('net0', 'virtio,macaddr=02:00:00:00:00:01', systemRandom), /^virtio=02:00:00:00:00:01$/)
})

test('boot order: as given, by letters, or the first disk, disc and card', () => {
  const options = { scsi1: 'local:100/vm-100-disk-0.raw', ide2: 'none,media=cdrom', net3: 'virtio' }
  assert.deepEqual(bootOrderOf({ ...options, boot: 'order=net3;scsi1' }), ['net3', 'scsi1'])
  assert.deepEqual(bootOrderOf({ ...options, boot: 'dn' }), ['ide2', 'net3'])
  assert.deepEqual(bootOrderOf(options), ['scsi1', 'ide2', 'net3'])
  assert.deepEqual(bootOrderOf({ ...options, boot: 'order=' }), [])
})

test('a copy is nobody’s twin', () => {
  const provenance = { random: systemRandom, clock: systemClock, qemuVersion: '7.2.22' }
  const original = completed(requireOptions({ net0: 'virtio', smbios1: 'manufacturer=Acme' }), provenance)
  const copy = unique(original, systemRandom)
  for (const name of ['net0', 'smbios1', 'vmgenid']) assert.notEqual(copy[name], original[name], name)
  assert.match(copy.smbios1 ?? '', /manufacturer=Acme/)
})
