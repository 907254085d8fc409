/** A change that a running guest takes part in keeps the promises of every operation: the guest goes back with it. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { configureGuest } from '#operations/guest/configure.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { addDisk, depsOf, diskWorld, look } from './disk-world.ts'

// A crash is undone as a failure is, which the stopped guest's test shows at every moment.
suite('changing a running guest', () => {
  const place = async () => {
    const world = await diskWorld()
    const vmid = await world.define(100, {
      scsihw: 'virtio-scsi-pci',
      scsi0: await addDisk(world, 100, 'qcow2', 'A'),
      scsi1: await addDisk(world, 100, 'raw', 'B'),
    })
    await world.guests.start(vmid)
    const set = { scsi2: 'local:0.001', cpulimit: '0.5', cores: '2' }
    return {
      params: { vmid: 100, force: true, change: { set, delete: ['scsi1'], revert: [] } },
      deps: depsOf(world),
      look: () => look(world),
      [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
    }
  }
  everyStepFails(configureGuest, place, { withCrashes: false })
})

test('a disk based on a template comes to a running guest, whose QEMU may not open the template', async () => {
  await using world = await diskWorld()
  const base = await world.storage.freeze(await addDisk(world, 100, 'qcow2', 'A'))
  const linked = await world.storage.link(base, world.id(101))
  const vmid = await world.define(101, { scsihw: 'virtio-scsi-single', unused0: linked })
  await world.guests.start(vmid)
  const change = { set: { scsi4: `${linked},iothread=1` }, delete: [], revert: [] }
  const { live } = await perform(configureGuest, { vmid, change }, depsOf(world), memoryJournal())
  assert.deepEqual(live, {})
  await using monitor = await world.guests.qmp(vmid)
  await monitor.execute('human-monitor-command', {
    'command-line': 'qemu-io -d scsi4 "read -P 0x41 0 64k"',
  })
  // It tells its log what it read, and of a pattern that is another.
  const log = () => readFile(join(world.guests.runDirOf(vmid), 'qemu.log'), 'utf8')
  await waitFor(async () => /read 65536\/65536 bytes/.test(await log()), { what: 'the read', timeoutMs: 60_000 })
  assert.doesNotMatch(await log(), /Pattern verification failed/)
  assert.match(String((await world.guests.config(vmid)).running?.scsi4), /iothread=1/)
})
