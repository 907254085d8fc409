/** Starting, halting and going on, with tiny real guests: whatever fails, the guest is as it was. */
import { everyStepFails } from '#tasks/conformance.ts'
import { type GuestWorld, guestWorld } from '../../../test/guest/qemu-world.ts'
import { resumeGuest, suspendGuest } from './power.ts'
import { startGuest } from './start.ts'

async function place(prepare: (world: GuestWorld) => Promise<void>) {
  const world = await guestWorld({ forgetful: true })
  await world.define(100)
  await prepare(world)
  const { guests } = world
  return {
    params: { vmid: 100 },
    deps: { guests },
    look: async () => {
      const [guest] = await guests.list()
      if (guest?.state.state !== 'running') return 'stopped'
      return (await guests.isPaused(guest.vmid)) ? 'paused' : 'running'
    },
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  }
}

everyStepFails(startGuest, () => place(async () => {}))
everyStepFails(suspendGuest, () => place(({ guests, id }) => guests.start(id(100))))
everyStepFails(resumeGuest, () =>
  place(async ({ guests, id }) => {
    await guests.start(id(100))
    await guests.suspend(id(100))
  }),
)
