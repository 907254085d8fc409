/** Where leases go by time, whoever writes has the time of the server: at the beginning, and for as long as they write. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { deps } from '../../../test/fixtures/datastore.ts'
import { objectStore } from '../../../test/fixtures/object-store.ts'
import { placeServer } from '../../../test/fixtures/place-server.ts'
import { makeDatastoreIn } from '../../../test/fixtures/sealed-datastore.ts'
import { openDatastore } from '../datastore.ts'
import { liveLeases } from './lease.ts'
import { HttpsPlace } from './https/place.ts'
import type { Place } from './place.ts'
import { S3Place } from './s3/place.ts'

const [store, server] = await Promise.all([objectStore(), placeServer()])
after(async () => {
  await store[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
})

const minuteMs = 60_000
const isApart = (fault: unknown) =>
  isFault(fault, 'failed') && /the clock of this machine and that of '\S+' are too far apart/.test(fault.message)

/** Ahead of the right time, or behind it; asleep for a while, when its own time stood still. */
function ownClock() {
  let [aheadMs, sleptMs] = [0, 0]
  const now = () => deps.clock.now() + aheadMs
  const clock = { ...deps.clock, now, monotonic: () => deps.clock.monotonic() - sleptMs }
  return { clock, set: (ms: number) => (aheadMs = ms), sleep: (ms: number) => (sleptMs += ms) }
}

const { endpoint, credentialsFile } = store
const spec = {
  s3: { s3: { bucket: await store.bucket(), prefix: 'site', endpoint, credentialsFile } },
  https: { https: server.reach('site') },
}
type Own = ReturnType<typeof ownClock>
const places: Readonly<Record<string, readonly [typeof spec.s3 | typeof spec.https, (own: Own) => Promise<Place>]>> = {
  'a bucket': [spec.s3, ({ clock }) => S3Place.open(spec.s3.s3, { ...deps, clock })],
  'another Hakobune': [spec.https, ({ clock }) => HttpsPlace.open(spec.https.https, { ...deps, clock })],
}

for (const [name, [where, open]] of Object.entries(places)) {
  test(`whose clock is off, or is set wrong later, writes nothing until it is right: ${name}`, async () => {
    const own = ownClock()
    own.set(-12 * minuteMs)
    await using place = await open(own)
    const text = Buffer.from('x')
    const acts = {
      put: (at: number) => place.put(`marks/_/vm/1/${at}`, text),
      replace: () => place.replace('leases/somebody', text),
    }
    let at = 0
    for (const wrong of [-12 * minuteMs, 12 * minuteMs, -60 * minuteMs]) {
      own.set(wrong)
      await assert.rejects(acts.replace(), isApart)
      await assert.rejects(acts.put((at += 1)), isApart)
      own.set(2 * minuteMs)
      await acts.replace()
      await acts.put((at += 1))
    }
    await place.remove('leases/somebody')
  })

  test(`who has slept is told the time anew: ${name}`, async () => {
    const own = ownClock()
    await using place = await open(own)
    own.sleep(30 * minuteMs)
    await place.replace('leases/of-mine', Buffer.from('x'))
    await place.remove('leases/of-mine')
  })

  test(`whose clock is ahead clears nobody's lease away: ${name}`, async () => {
    await using made = await makeDatastoreIn(where)
    await using lease = await (await made.reopen()).datastore.lease('write')
    const own = ownClock()
    await using place = await open(own)
    const datastore = await openDatastore(place, { ...deps, clock: own.clock })
    own.set(12 * minuteMs)
    await assert.rejects(liveLeases({ place, clock: own.clock }), isApart)
    await assert.rejects(datastore.tryTidy(), isApart)
    assert.equal((await liveLeases({ place, clock: deps.clock })).length, 1)
    await lease.requireHeld()
  })
}
