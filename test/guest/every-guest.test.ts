/** A guest that cannot be put back into its state fails alone: the others have their turn, and it is tried again. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { GuestService } from '#guests/service.ts'
import { type BackupGuests, backupGuests } from '#operations/backup/run.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { type BackupWorld, backupWorld, task } from './backup-world.ts'

const noMemory = 'VM 100 does not start: not enough memory'

test('the others are backed up when a guest does not start again after its backup, and its failure is named', async () => {
  await using world = await worldOfThree()
  const guest = runningGuest(world.guests, Infinity)
  const { outcome, remedy, log } = await run(world, guest, {})
  assert.equal(outcome, `job errors; undo of 'backups' failed: ${noMemory}`)
  assert.match(remedy, /Not undone: 'backups'/)
  assert.match(log, /^ERROR: Backup of VM 100 failed - VM 100 does not start: not enough memory$/m)
  assert.match(log, /^ERROR: VM 100 is not as it was before - VM 100 does not start: not enough memory$/m)
  assert.deepEqual(await backedUp(world), [100, 101, 102])
})

test('why the backup failed and why its guest does not run again are both told', async () => {
  await using world = await worldOfThree()
  const late = new Fault('timeout', 'VM 100 does not shut down')
  const guest = runningGuest(world.guests, 1, late)
  const { outcome, remedy } = await run(world, guest, { vmids: [100, 199] })
  assert.equal(outcome, 'job errors')
  assert.match(remedy, /VM 100: VM 100 does not shut down; VM 100 does not start: not enough memory; VM 199: /)
  assert.ok(guest.isUp())
})

test('a guest that could not be put back is, when the job ends', async () => {
  await using world = await worldOfThree()
  // After its backup, and when it is put back at once.
  const guest = runningGuest(world.guests, 2)
  const { outcome, remedy } = await run(world, guest, {})
  assert.equal(outcome, 'job errors')
  assert.match(remedy, /^1 of 3 backups failed: VM 100: VM 100 does not start: not enough memory$/)
  assert.deepEqual([guest.isUp(), await backedUp(world)], [true, [100, 101, 102]])
})

test('a guest that could not be put back is before it is tried again by its job', async () => {
  await using world = await worldOfThree()
  const guest = runningGuest(world.guests, 2)
  const { outcome, log } = await run(world, guest, { jobId: 'nightly' })
  assert.equal(outcome, 'whole')
  assert.match(log, /^INFO: VM 100 is tried again in 60 s: VM 100 does not start: not enough memory$/m)
  assert.deepEqual([guest.isUp(), await backedUp(world)], [true, [100, 100, 101, 102]])
})

async function worldOfThree(): Promise<BackupWorld> {
  const world = await backupWorld()
  for (const vmid of [100, 101, 102]) await world.define(vmid, {})
  return world
}

async function run(world: BackupWorld, guest: { guests: GuestService }, params: Partial<BackupGuests>) {
  const lines: string[] = []
  const all: BackupGuests = { vmids: [100, 101, 102], storage: 'vault', mode: 'stop', ...params }
  const sleep = async () => {}
  const deps = { ...world.deps, guests: guest.guests, clock: { ...systemClock, sleep } }
  const say = (line: string) => void lines.push(line)
  const ended = perform(backupGuests, all, deps, memoryJournal(), { task, log: say, warn: say })
  const fault = await ended.then(
    () => undefined,
    (cause: unknown) => (isFault(cause) ? cause : Promise.reject(cause as Error)),
  )
  return { outcome: fault?.message ?? 'whole', remedy: fault?.remedy ?? '', log: lines.join('\n') }
}

/** Of whom, one for each. That of 100 was whole before it could not be started again. */
async function backedUp(world: BackupWorld): Promise<number[]> {
  return (await world.backup.list({ storage: 'vault' })).map(({ vmid }) => Number(vmid)).toSorted((a, b) => a - b)
}

/**
 * Guests of which 100 runs, and does not start so many times.
 * @param late what is said although it does shut down
 */
function runningGuest(real: GuestService, failures: number, late?: Fault) {
  let [isUp, left] = [true, failures]
  const acts: Record<string, (vmid: number) => Promise<unknown>> = {
    isRunning: async (vmid) => vmid === 100 && isUp,
    shutdown: async () => {
      isUp = false
      if (late) throw late
    },
    start: async () => {
      left -= 1
      if (left >= 0) throw new Fault('failed', noMemory)
      isUp = true
    },
  }
  const guests = new Proxy(real, {
    get(service, name) {
      const value: unknown = acts[String(name)] ?? Reflect.get(service, name, service)
      return typeof value === 'function' ? value.bind(service) : value
    },
  })
  return { guests, isUp: () => isUp }
}
