/** A change that a running guest takes part in keeps the promises of every operation: the guest goes back with it. */
import { suite } from 'node:test'
import { configureGuest } from '#operations/guest/configure.ts'
import { everyStepFails } from '#tasks/conformance.ts'
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
