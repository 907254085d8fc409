/** What becomes of a guest while it runs, asked from inside: disks, cards, discs and processors come and go. */
import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { ownBridge } from '../../src/settings.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('a guest that changes while it runs', { timeout: 900_000 }, () => {
  let node: TestNode
  let guest: string
  before(async () => {
    node = await nodeUnderTest()
    guest = `/nodes/${node.settings.node}/qemu/100`
    await node.boot(100, {
      cores: '2',
      vcpus: '1',
      memory: '1024',
      numa: '1',
      hotplug: 'disk,network,usb,cpu,memory',
      scsi2: 'none,media=cdrom',
      watchdog: 'i6300esb,action=none',
      rng0: 'source=/dev/urandom',
      audio0: 'device=ich9-intel-hda,driver=none',
      shares: '0',
    })
  })
  after(() => node[Symbol.asyncDispose]())

  const sh = (script: string) => node.sh(100, script)
  const set = (options: Readonly<Record<string, string>>) => node.api('PUT', `${guest}/config`, options)
  const pending = async () =>
    ((await node.api('GET', `${guest}/pending`)) as Reply[]).filter((item) => 'pending' in item || 'delete' in item)
  const running = async () => (await node.api('GET', `${guest}/config`, { current: '1' })) as Reply
  const until = (script: string, expected: string) =>
    waitFor(async () => (await sh(`${script}; true`)) === expected, {
      what: `${script}: ${expected}`,
      timeoutMs: 60_000,
      everyMs: 50,
    })
  const disks = 'ls /sys/block | tr "\\n" " "'
  const balloon = async () =>
    Number(/actual=(\d+)/.exec(String(await node.api('POST', `${guest}/monitor`, { command: 'info balloon' })))?.[1])
  const total = async () => Number(await sh("sed -n 's/MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo"))
  const processors = 'ls -d /sys/devices/system/cpu/cpu[0-9] | wc -l'
  const cards = 'ls /sys/class/net | grep -v lo | wc -l'

  test('devices of the configuration are on the guest’s bus', async () => {
    const devices = await sh('cat /sys/bus/pci/devices/*/device /sys/bus/pci/devices/*/vendor | sort -u | tr "\\n" " "')
    // Watchdog, sound card, entropy.
    for (const id of ['0x25ab', '0x293e', '0x1005']) assert.match(devices, new RegExp(id))
    assert.equal(await sh('cat /sys/class/misc/hw_random/rng_current'), 'virtio_rng.0')
  })

  test('a disk comes with its serial number and goes again, on either bus', async () => {
    const then = await sh(disks)
    await sh('modprobe virtio_blk')
    await set({ scsi3: 'local:0.01,serial=ABC-3,ssd=1', virtio2: 'local:0.02,serial=xyz' })
    await until('cat /sys/block/vda/serial', 'xyz')
    assert.match(await sh('cat /sys/block/sdb/device/vpd_pg80'), /ABC-3/)
    assert.equal(await sh('cat /sys/block/sdb/queue/rotational'), '0')
    assert.deepEqual(await pending(), [])
    assert.match(String((await running()).scsi3), /^local:100\/vm-100-disk-1\.raw,/)
    await sh('echo written > /dev/vda && sync')
    await set({ delete: 'scsi3,virtio2' })
    await until(disks, then)
    const { unused0, unused1, scsi3 } = await running()
    assert.deepEqual(
      [unused0, unused1, scsi3],
      ['local:100/vm-100-disk-1.raw', 'local:100/vm-100-disk-2.raw', undefined],
    )
    await set({ virtio5: String(unused1) })
    await until('head -c 7 /dev/vda', 'written')
    await set({ delete: 'virtio5', force: '1' })
    await until(disks, then)
    await set({ delete: 'unused0' })
    const left = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
      content: 'images',
    })) as Reply[]
    assert.deepEqual(
      left.map(({ volid }) => volid),
      ['local:100/vm-100-disk-0.raw'],
    )
  })

  test('limits of a disk change under it, and its cache waits for a restart', async () => {
    const { scsi0 } = await running()
    await set({ scsi0: `${String(scsi0)},mbps_rd=50,iops_wr=100` })
    assert.deepEqual(await pending(), [])
    const throttle = async () => String(await node.api('POST', `${guest}/monitor`, { command: 'info block' }))
    assert.match(await throttle(), /bps_rd=52428800.*iops_wr=100/)
    await set({ scsi0: String(scsi0) })
    assert.doesNotMatch(await throttle(), /bps_rd=52428800/)
    await set({ scsi0: `${String(scsi0)},cache=unsafe` })
    assert.deepEqual(await pending(), [{ key: 'scsi0', value: scsi0, pending: `${String(scsi0)},cache=unsafe` }])
    await set({ revert: 'scsi0' })
    assert.deepEqual(await pending(), [])
    assert.equal((await running()).scsi0, scsi0)
  })

  test('a card comes, loses its cable, and goes', async () => {
    const bridge = ownBridge(node.settings)
    await set({ net3: `virtio=BC:24:11:00:00:77,bridge=${bridge}` })
    await until(cards, '2')
    const name = await sh('grep -l bc:24:11:00:00:77 /sys/class/net/*/address | cut -d/ -f5')
    await sh(`ip link set ${name} up`)
    await until(`cat /sys/class/net/${name}/carrier`, '1')
    await set({ net3: `virtio=BC:24:11:00:00:77,bridge=${bridge},link_down=1` })
    await until(`cat /sys/class/net/${name}/carrier`, '0')
    await set({ net3: `virtio=BC:24:11:00:00:77,bridge=${bridge}` })
    await until(`cat /sys/class/net/${name}/carrier`, '1')
    await set({ net3: `virtio=BC:24:11:00:00:88,bridge=${bridge}` })
    await until('grep -l bc:24:11:00:00:88 /sys/class/net/*/address | wc -l', '1')
    await set({ delete: 'net3' })
    await until(cards, '1')
    assert.deepEqual(await pending(), [])
    assert.equal(
      await sh('ping -c 1 -W 5 $(ip route | sed -n "s/^default via \\([0-9.]*\\).*/\\1/p") >/dev/null && echo up'),
      'up',
    )
  })

  test('a disc is put in, changed and taken out', async () => {
    const isos = join(node.settings.stateDir, 'storage/local/template/iso')
    await mkdir(isos, { recursive: true })
    for (const letter of ['a', 'b']) await writeFile(join(isos, `${letter}.iso`), Buffer.alloc(65_536, letter))
    for (const letter of ['a', 'b']) {
      await set({ scsi2: `local:iso/${letter}.iso,media=cdrom` })
      await until('head -c 3 /dev/sr0', letter.repeat(3))
    }
    await sh('echo 1 > /proc/sys/dev/cdrom/lock; exec 3</dev/sr0')
    await set({ scsi2: 'none,media=cdrom' })
    await until('head -c 3 /dev/sr0 2>/dev/null | wc -c', '0')
    assert.deepEqual(await pending(), [])
  })

  test('a processor is added, and taken out at once where no emulation is in the way', async () => {
    await set({ vcpus: '2' })
    await until(processors, '2')
    assert.deepEqual(await pending(), [])
    await set({ vcpus: '1' })
    const accelerator = String(await node.api('POST', `${guest}/monitor`, { command: 'info kvm' }))
    if (/enabled/.test(accelerator)) await until(processors, '1')
    else {
      assert.deepEqual(await pending(), [{ key: 'vcpus', value: '2', pending: '1' }])
      assert.equal(await sh(processors), '2')
      await set({ revert: 'vcpus' })
    }
    assert.deepEqual(await pending(), [])
  })

  test('memory is added, a module at a time, and a size that no modules make is refused', async () => {
    const before = await total()
    await set({ memory: '1536' })
    await waitFor(
      async () => {
        // The guest's kernel makes the new blocks when it comes to it, and this image has nobody who switches them on.
        await sh(
          'for state in /sys/devices/system/memory/memory*/state; do echo online > $state 2>/dev/null; done; true',
        )
        return (await total()) - before > 500_000
      },
      { what: 'more memory', timeoutMs: 60_000 },
    )
    assert.deepEqual(await pending(), [])
    await assert.rejects(set({ memory: '1600' }), (fault) => isFault(fault) && fault.fields?.memory !== undefined)
  })

  test('shares, processors of the node and the balloon change at once', async () => {
    const before = await total()
    await set({ cpulimit: '0.5', cpuunits: '200', affinity: '0', balloon: '1400' })
    assert.deepEqual(await pending(), [])
    await waitFor(async () => (await total()) < before - 100_000, { what: 'the balloon', timeoutMs: 60_000 })
    await set({ delete: 'cpulimit,cpuunits,affinity,balloon' })
    assert.deepEqual(await pending(), [])
    await waitFor(async () => (await balloon()) === 1536, { what: 'all of its memory', timeoutMs: 60_000 })
  })

  test('a node that may use less takes memory from guests that allow it, and gives it back', async () => {
    const config = (target: string) =>
      node.api('PUT', `/nodes/${node.settings.node}/config`, { 'ballooning-target': target })
    const before = await total()
    const full = await balloon()
    await config('0')
    // Not far below: every step takes a round of the node, down as up.
    await set({ balloon: '1400', shares: '500' })
    await waitFor(async () => (await balloon()) <= full - 100, { what: 'a step of the balloon', timeoutMs: 60_000 })
    await waitFor(async () => (await total()) < before - 90_000, { what: 'less memory', timeoutMs: 60_000 })
    await config('100')
    await waitFor(async () => (await balloon()) === full, { what: 'all of its memory', timeoutMs: 60_000 })
    await set({ shares: '0', delete: 'balloon' })
  })

  test('what cannot change at once is pending, and in force after a restart', async () => {
    await set({ balloon: '0', scsi5: 'local:0.01', ide0: 'local:0.01', name: 'renamed' })
    const wanted = (await node.api('GET', `${guest}/config`)) as Reply
    assert.deepEqual(
      (await pending()).map(({ key, value, pending: next }) => [key, value, next]),
      [
        ['balloon', undefined, '0'],
        ['ide0', undefined, wanted.ide0],
      ],
    )
    assert.equal((await running()).balloon, undefined)
    await node.task(await node.api('POST', `${guest}/status/stop`))
    await node.task(await node.api('POST', `${guest}/status/start`))
    assert.deepEqual(await pending(), [])
    const devices = String(await node.api('POST', `${guest}/monitor`, { command: 'qom-list /machine/peripheral' }))
    assert.doesNotMatch(devices, /balloon0/)
    assert.match(devices, /dimm0/)
    const block = String(await node.api('POST', `${guest}/monitor`, { command: 'info block' }))
    for (const drive of ['ide0', 'scsi5']) assert.match(block, new RegExp(`^drive-${drive}:`, 'm'))
  })

  test('a stale digest and a kind that is none are refused, and nothing has changed', async () => {
    const before = await node.api('GET', `${guest}/config`)
    for (const [options, expected] of [
      [{ scsi6: 'local:0.01', digest: '0'.repeat(40) }, /detected modified configuration/],
      [{ hotplug: 'disk,nonsense' }, /Parameter verification failed/],
    ] as const) {
      await assert.rejects(set(options), (fault) => isFault(fault) && expected.test(fault.message))
    }
    assert.deepEqual(await node.api('GET', `${guest}/config`), before)
  })
})
