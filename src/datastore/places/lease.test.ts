/** Leases where others judge them by time alone, and clocks that are set while somebody is at work. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { deps, disk, memorySource } from '../../../test/fixtures/datastore.ts'
import { placeServer } from '../../../test/fixtures/place-server.ts'
import { backUp, makeDatastoreIn, point, secret } from '../../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { openDatastore } from '../datastore.ts'
import { Lease, leaseSeconds, liveLeases } from './lease.ts'
import { HttpsPlace } from './https/place.ts'
import { verifyBackup } from '../verify/verify.ts'

const server = await placeServer()
after(() => server[Symbol.asyncDispose]())
const minuteMs = 60_000
const hourMs = 60 * minuteMs
const isMissed = (fault: unknown) => isFault(fault, 'unavailable') && /nobody in .* has heard/.test(fault.message)

/** Time that passes as the test says; `right` is the clock of everybody else. */
function clocks() {
  const begin = deps.clock.now()
  let [passedMs, aheadMs] = [0, 0]
  const asleep = new Set<{ readonly untilMs: number; readonly wake: () => void }>()
  const sleep = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve) => {
      const sleeper = { untilMs: passedMs + ms, wake: resolve }
      asleep.add(sleeper)
      signal?.addEventListener('abort', () => resolve())
    })
  const right = { now: () => begin + passedMs, monotonic: () => passedMs, sleep }
  return {
    right,
    own: { ...right, now: () => begin + passedMs + aheadMs },
    set: (ms: number) => (aheadMs = ms),
    pass(ms: number) {
      passedMs += ms
      for (const sleeper of asleep) {
        if (sleeper.untilMs > passedMs) continue
        asleep.delete(sleeper)
        sleeper.wake()
      }
    },
  }
}

async function placeOf(name: string): Promise<HttpsPlace> {
  const place = await HttpsPlace.open(server.reach(name), deps)
  after(() => place[Symbol.asyncDispose]())
  return place
}

/** Works for half an hour. */
async function work(lease: Lease, time: ReturnType<typeof clocks>): Promise<void> {
  for (let minutes = 0; minutes < 30; minutes += 3) {
    time.pass(3 * minuteMs)
    await lease.requireHeld()
  }
}

test('who works stays alive to others when their clock is set back, or was ahead and is set right', async () => {
  const place = await placeOf('set')
  for (const [before, later] of [
    [0, -hourMs],
    [0, 5 * minuteMs],
    [hourMs, 0],
  ] as const) {
    const time = clocks()
    time.set(before)
    await using lease = await Lease.begin({ place, clock: time.own, random: deps.random }, 'write', 'me')
    time.set(later)
    await work(lease, time)
    assert.equal((await liveLeases({ place, clock: time.right })).length, 1, `${before} and then ${later}`)
  }
})

test('whose clock was behind and is set right has been taken for dead, and so has who slept', async () => {
  const place = await placeOf('behind')
  for (const behind of [-hourMs, 0]) {
    const time = clocks()
    time.set(behind)
    await using lease = await Lease.begin({ place, clock: time.own, random: deps.random }, 'write', 'me')
    time.set(behind + hourMs)
    await assert.rejects(lease.requireHeld(), isMissed)
  }
})

test('who cannot know how long it was, as the clock was set back, looks whether others have taken them for dead', async () => {
  const place = await placeOf('looks')
  const time = clocks()
  await using lease = await Lease.begin({ place, clock: time.own, random: deps.random }, 'write', 'me')
  const late = { ...time.right, now: () => time.right.now() + (leaseSeconds + 1) * 1000 }
  assert.deepEqual(await liveLeases({ place, clock: late }), [])
  time.set(-minuteMs)
  await assert.rejects(lease.requireHeld(), isMissed)
})

test('a backup during which the clock is set back is whole, though garbage is collected beside it', async () => {
  const name = 'backup'
  await using made = await makeDatastoreIn({ https: server.reach(name) })
  const content = disk('rrrr')
  await backUp(await made.reopen(), point(0), { scsi0: content })
  const time = clocks()
  const place = await placeOf(name)
  const opened = async (clock: typeof time.own) => (await openDatastore(place, { ...deps, clock })).unlock(secret)
  await using writer = await (await opened(time.own)).begin(point(1))
  await writer.addDisk('scsi0', memorySource(content))
  time.set(-hourMs)
  const lease = async () => (await Array.fromAsync(place.list('leases/')))[0]?.version
  for (const minutes of [6, 6]) {
    const before = await lease()
    time.pass(minutes * minuteMs)
    await waitFor(async () => (await lease()) !== before, { what: 'the next renewal', timeoutMs: 5_000 })
  }
  const owner = await opened(time.right)
  await owner.datastore.remove(point(0))
  assert.notEqual((await collectGarbage(owner)).waitsFor, undefined)
  await writer.commit()
  await verifyBackup(await opened(time.right), point(1))
})
