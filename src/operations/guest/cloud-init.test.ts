/** A new cloud-init drive under a running guest: whatever fails, it has the old one or the new one, and no third. */
import { everyStepFails } from '#tasks/conformance.ts'
import { depsOf, diskWorld, look } from '../../../test/guest/disk-world.ts'
import { ownCloudInits } from './cloud-init-drive.ts'
import { updateCloudInit } from './cloud-init.ts'

async function worldWithPendingChange() {
  const world = await diskWorld()
  const { guests, storage, id } = world
  const context = { vmid: id(100), storage, log: () => {} }
  const drive = await ownCloudInits({ ide2: 'local:cloudinit,media=cdrom' }, undefined, context)
  const vmid = await world.define(100, { name: 'web', ciuser: 'ann', nameserver: '192.0.2.53', ...drive })
  await guests.start(vmid)
  await guests.changeConfig(vmid, (options) => ({ ...options, ciuser: 'bob' }))
  return {
    params: { vmid },
    deps: depsOf(world),
    look: () => look(world),
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  }
}

everyStepFails(updateCloudInit, worldWithPendingChange)
