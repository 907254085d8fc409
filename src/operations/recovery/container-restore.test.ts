/** A container that is drilled gets nothing of the node, whatever its configuration says. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { scratchContainer } from './container-restore.ts'

test('what reaches beyond the container stays out of its drill, and is told', () => {
  const own = {
    rootfs: 'local:100/vm-100-disk-0.raw,size=8G',
    mp0: 'local:100/subvol-100-disk-1.subvol,mp=/srv,backup=1',
    net0: 'name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=192.168.1.5/24,gw=192.168.1.1',
    memory: '64',
    cores: '1',
    unprivileged: '1',
    features: 'nesting=1',
  }
  const told: string[] = []
  const scratch = scratchContainer(
    {
      ...own,
      hostname: 'web',
      mp1: '/srv/of-the-node,mp=/shared',
      dev0: '/dev/ttyUSB0',
      dev12: '/dev/fuse',
      hookscript: 'local:snippets/hook',
      onboot: '1',
      startup: 'order=1',
      protection: '1',
    },
    'ct/100',
    (line) => told.push(line),
  )
  assert.deepEqual(scratch, { ...own, hostname: 'drill-ct-100' })
  assert.deepEqual(told, ['not in the drill: dev0, dev12, hookscript, mp1, onboot, protection, startup'])
})
