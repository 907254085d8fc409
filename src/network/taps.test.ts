/** A real QEMU on a tap of an isolated network: its firmware asks for an address, so no guest system is needed. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { closeSync } from 'node:fs'
import { once } from 'node:events'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { findLink } from '#host/network/ip.ts'
import { inNetns } from '#host/network/netns.ts'
import { host, node } from '../../test/network-on-this-machine.ts'

test('a guest in an isolated network gets its address over the tap it inherited, and its tap dies with it', async () => {
  await using lab = await node()
  const { network } = lab
  const { netns } = await network.createIsolated('drill')
  const mac = 'bc:24:11:00:aa:01'
  const { tap, fd } = await network.plug({ vmid: 100, nic: 'net0', mac, bridge: 'vmbr0', netns })
  const machineWords = ['-accel', 'tcg', '-M', 'pc', '-m', '64', '-nodefaults', '-display', 'none', '-boot', 'n']
  const card = ['-netdev', 'tap,id=n0,fd=3', '-device', `virtio-net-pci,netdev=n0,mac=${mac}`]
  const [program, ...args] = inNetns(netns, ['qemu-system-x86_64', ...machineWords, ...card])
  const qemu = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit', fd] })
  closeSync(fd)
  try {
    const address = await waitFor(() => network.addressOf(mac, { netns }), { what: 'a lease', timeoutMs: 60_000 })
    assert.match(address, /^10\.181\.255\.\d+$/)
  } finally {
    qemu.kill('SIGKILL')
    await once(qemu, 'exit')
  }
  await waitFor(async () => (await findLink(host, tap, { netns })) === undefined, {
    what: 'the end of the tap',
    timeoutMs: 60_000,
  })
})
