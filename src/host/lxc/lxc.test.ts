import assert from 'node:assert/strict'
import { access, mkdtemp, readdir, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { haltSignalBy, lastErrorIn, linkPrograms } from './lxc.ts'

test('an init is told to shut down by the signal it waits for', () => {
  const status = (blocked: string, caught: string) =>
    `Name:\tinit\nSigBlk:\t${blocked}\nSigIgn:\t0\nSigCgt:\t${caught}\n`
  const [user2, power, realTimeMin3] = [12, 30, 37]
  assert.equal(haltSignalBy(status('7be3c0fe28014a03', '0000000000001000')), realTimeMin3, 'systemd')
  assert.equal(haltSignalBy(status('0000000020014a07', '0000000000080000')), user2, 'busybox')
  assert.equal(haltSignalBy(status('0', '0000000020000800')), power, 'one that catches both')
  assert.equal(haltSignalBy(status('0', '0000000000000800')), user2)
  assert.equal(haltSignalBy(''), power)
})

test('of a log of LXC the first error is told', () => {
  const line = (level: string, text: string) =>
    `lxc-start 100 20261120.1 ${level} conf - ../src/lxc/conf.c:mount:12 - ${text}\n`
  assert.equal(
    lastErrorIn(line('WARN', 'a') + line('ERROR', 'no such bridge') + line('ERROR', 'gave up')),
    'no such bridge',
  )
  assert.equal(lastErrorIn(''), 'LXC said nothing')
})

test('LXC finds its programs where they are, also after one has moved, and nothing half made stays', async () => {
  const home = await mkdtemp(join(tmpdir(), 'hako-programs-'))
  try {
    const folder = join(home, 'programs')
    await linkPrograms(folder)
    await access(join(folder, 'lxc-start'))
    await rm(join(folder, 'lxc-start'))
    await symlink(join(home, 'moved'), join(folder, 'lxc-start'))
    await Promise.all([linkPrograms(folder), linkPrograms(folder)])
    await access(join(folder, 'lxc-start'))
    const names = await readdir(folder)
    assert.ok(!names.some((name) => name.startsWith('.') || name === 'newuidmap'), String(names))
  } finally {
    await rm(home, { recursive: true })
  }
})
