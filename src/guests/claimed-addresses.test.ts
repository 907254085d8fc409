import assert from 'node:assert/strict'
import { test } from 'node:test'
import { claimedAddresses, isSame } from './claimed-addresses.ts'

test('guests have the fixed addresses they are told, where their card is', () => {
  const container = claimedAddresses('lxc', {
    net0: 'name=eth0,bridge=vmbr0,tag=7,ip=192.0.2.4/24,ip6=2001:DB8:0::1/64',
    net1: 'name=eth1,bridge=vmbr0,ip=dhcp,ip6=auto',
    net2: 'name=eth2,bridge=vmbr0,ip=192.0.2.5/24,link_down=1',
    net3: 'name=eth3,ip=192.0.2.6/24',
  })
  assert.deepEqual(container, [
    { nic: 'net0', bridge: 'vmbr0', tag: 7, address: '192.0.2.4' },
    { nic: 'net0', bridge: 'vmbr0', tag: 7, address: '2001:db8::1' },
  ])
  const machine = claimedAddresses('qemu', {
    net0: 'virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=7',
    ipconfig0: 'ip=192.0.2.4/24,gw=192.0.2.1',
    net1: 'virtio=BC:24:11:00:00:02,bridge=vmbr0',
  })
  assert.deepEqual(machine, [{ nic: 'net0', bridge: 'vmbr0', tag: 7, address: '192.0.2.4' }])
  const [mine, theirs] = [container[0], machine[0]]
  assert.ok(mine && theirs && isSame(mine, theirs) && !isSame(mine, { ...theirs, tag: undefined }))
})
