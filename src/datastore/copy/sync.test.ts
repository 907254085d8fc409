/** Copies, as they are kept beside running machines: slowly, of a part, by who may do little, and cut off by death. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import type { Mark } from '#base/pace.ts'
import { KiB, MiB } from '#base/bytes.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { openPlace, type PlaceSpec } from '../../../test/fixtures/any-place.ts'
import { deps, disk } from '../../../test/fixtures/datastore.ts'
import { placeServer } from '../../../test/fixtures/place-server.ts'
import { readAlone } from '../../../test/fixtures/read-alone.ts'
import {
  backUp,
  point,
  recovery,
  restored,
  secret,
  temporaryDatastore,
} from '../../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { openDatastore } from '../datastore.ts'
import { printPoint } from '../point.ts'
import { verifyBackup } from '../verify/verify.ts'
import { syncDatastore } from './sync.ts'

const server = await placeServer()
const home = await mkdtemp(join(tmpdir(), 'hako-sync-'))
after(async () => {
  await server[Symbol.asyncDispose]()
  await rm(home, { recursive: true })
})

/** Time that goes by only where somebody waits for less than a minute; a lease is renewed after that. */
function ownTime(): Clock {
  let waitedMs = 0
  return {
    now: systemClock.now,
    monotonic: () => waitedMs,
    async sleep(ms, signal) {
      if (ms >= 60_000) await systemClock.sleep(ms, signal)
      else waitedMs += ms
    },
  }
}

test('a copy is made at the pace it may, from its first megabytes to the last', async () => {
  await using temporary = await temporaryDatastore()
  for (let time = 0; time < 5; time += 1) {
    await backUp(await temporary.reopen(), point(time), { scsi0: disk('r'.repeat(8 * (time + 1))) })
  }
  await using place = await openPlace({ folder: join(home, 'paced') })
  const { datastore } = await temporary.reopen()
  const clock = ownTime()
  const rateBytesPerSecond = 1 * MiB
  const seen: { readonly seconds: number; readonly bytes: number }[] = []
  const onProgress = ({ phase, bytes: done = 0 }: Mark) => {
    if (phase === 'packs') seen.push({ seconds: clock.monotonic() / 1000, bytes: done })
  }
  const { bytes, packs } = await syncDatastore(datastore, place, { ...deps, clock }, { rateBytesPerSecond, onProgress })
  assert.ok(bytes > 14 * MiB && packs >= 10 && seen.length === packs)
  for (const at of [...seen, { seconds: clock.monotonic() / 1000, bytes }]) {
    const allowed = at.seconds * rateBytesPerSecond
    assert.ok(at.bytes <= allowed + KiB && at.bytes > 0.9 * allowed - MiB, JSON.stringify(at))
  }
})

test('another Hakobune takes what is in a namespace, by a token that adds; what goes, goes by one that may remove', async () => {
  await using temporary = await temporaryDatastore()
  const wanted = [point(0, '100', 'office'), point(1, '100', 'office'), point(0, '101', 'office.web')]
  const content = disk('rrr')
  for (const name of [...wanted, point(0, '102'), point(0, '103', 'officer')]) {
    await backUp(await temporary.reopen(), name, { scsi0: wanted.includes(name) ? content : disk('rr') })
  }
  const source = (await temporary.reopen()).datastore
  const copying = async (rights: Parameters<typeof server.reach>[1], removesVanished = false) => {
    await using place = await openPlace({ https: server.reach('site', rights) })
    return await syncDatastore(source, place, deps, { namespace: 'office', removesVanished })
  }
  const there = async (rights: Parameters<typeof server.reach>[1]) => {
    const place = await openPlace({ https: server.reach('site', rights) })
    after(() => place[Symbol.asyncDispose]())
    return await openDatastore(place, deps)
  }
  const namesThere = async () => (await (await there(['write'])).points()).map(printPoint).toSorted()
  assert.equal((await copying(['write'])).backups, 3)
  assert.deepEqual(await namesThere(), wanted.map(printPoint).toSorted())
  const [old = point(0)] = wanted
  await source.remove(old)
  const isRefused = (fault: unknown) =>
    isFault(fault, 'denied') && fault.message === `the token adds, and removes nothing: 'marks/${printPoint(old)}'`
  await assert.rejects(copying(['write'], true), isRefused)
  await assert.rejects((await there(['write'])).remove(old), isRefused)
  await assert.rejects(
    async () => collectGarbage(await (await there(['read', 'write'])).unlock(secret)),
    /condemns nothing/,
  )
  // What is there without a namespace is not touched by who asks for one.
  assert.equal((await copying(['read', 'write', 'delete'], true)).removed, 1)
  const [, newer = point(0), other = point(0)] = wanted
  await (await there(['read', 'delete'])).remove(newer)
  assert.deepEqual(await namesThere(), [printPoint(other)])
  const open = await (await there(['read', 'write', 'delete'])).unlock(secret)
  assert.ok((await collectGarbage(open)).removedPacks > 0)
  await verifyBackup(open, other)
  assert.ok((await restored(open, other, 'scsi0')).equals(content))
})

test('a copy of a namespace made with a key has the packs it needs and no others, and is whole by itself', async () => {
  await using temporary = await temporaryDatastore()
  const [office, shop] = [disk('rrrr'), disk('rrrrrrrr')]
  const [first, second, other] = [point(0, '100', 'office'), point(1, '100', 'office'), point(0, '200', 'shop')]
  await backUp(await temporary.reopen(), first, { scsi0: office })
  await backUp(await temporary.reopen(), other, { scsi0: shop })
  const path = join(home, 'part')
  await using place = await openPlace({ folder: path })
  const packsThere = async () => (await Array.fromAsync(place.list('packs/'))).length
  const source = await temporary.reopen()
  const part = { namespace: 'office', open: source }
  const { datastore } = source
  const { packs, bytes } = await syncDatastore(datastore, place, deps, part)
  assert.ok(packs === (await packsThere()) && bytes < 5 * 128 * KiB, `${packs} packs, ${bytes} bytes`)
  assert.deepEqual(await syncDatastore(datastore, place, deps, part), { backups: 0, removed: 0, packs: 0, bytes: 0 })
  // Of a later one only what is new, though the packs it needs are partly there.
  const changed = Buffer.concat([office.subarray(0, 128 * KiB), disk('r'), office.subarray(256 * KiB)])
  await backUp(await temporary.reopen(), second, { scsi0: changed })
  assert.equal((await syncDatastore(datastore, place, deps, part)).backups, 1)
  const copy = async () => (await openDatastore(place, deps)).unlock(secret)
  for (const [one, content] of [
    [first, office],
    [second, changed],
  ] as const) {
    await verifyBackup(await copy(), one)
    assert.ok((await restored(await copy(), one, 'scsi0')).equals(content))
  }
  await collectGarbage(await copy())
  // What did not come is not taken for there.
  await backUp(await copy(), point(2, '300', 'shop'), { scsi0: shop })
  assert.ok((await restored(await copy(), point(2, '300', 'shop'), 'scsi0')).equals(shop))
  await readAlone(path, recovery)
  // All the rest comes when it is asked for.
  assert.equal((await syncDatastore(datastore, place, deps)).backups, 1)
  for (const one of await (await copy()).datastore.points()) await verifyBackup(await copy(), one)
  await readAlone(path, recovery)
})

test('a copy of a namespace finds again what its collector has dropped from a pack that stayed', async () => {
  await using temporary = await temporaryDatastore()
  const names = [0, 1, 2].map((time) => point(time, '100', 'office'))
  const [first = point(0), second = point(1), third = point(2)] = names
  const content = disk('rrrrrrrrrr')
  const less = Buffer.concat([Buffer.alloc(256 * KiB), content.subarray(256 * KiB)])
  await backUp(await temporary.reopen(), first, { scsi0: content })
  await backUp(await temporary.reopen(), second, { scsi0: less })
  await using place = await openPlace({ folder: join(home, 'dropped') })
  const copying = async () => {
    const open = await temporary.reopen()
    return syncDatastore(open.datastore, place, deps, { namespace: 'office', open, removesVanished: true })
  }
  const copy = async () => (await openDatastore(place, deps)).unlock(secret)
  await copying()
  await (await temporary.reopen()).datastore.remove(first)
  await copying()
  const { removedChunks, removedPacks } = await collectGarbage(await copy())
  assert.ok(removedChunks > 0 && removedPacks === 0)
  // The source has it all still, and stores nothing anew.
  assert.equal((await backUp(await temporary.reopen(), third, { scsi0: content })).disks[0]?.newChunks, 0)
  await copying()
  assert.ok((await restored(await copy(), third, 'scsi0')).equals(content))
  await verifyBackup(await copy(), third)
  await collectGarbage(await copy())
  await readAlone(join(home, 'dropped'), recovery)
  assert.deepEqual(await copying(), { backups: 0, removed: 0, packs: 0, bytes: 0 })
})

test('what protects a backup, and its notes, reach its copy also later; a check and what was said there stay their own', async () => {
  await using temporary = await temporaryDatastore()
  const points = [0, 1, 2].map((time) => point(time))
  const [noted = point(0), guarded = point(1), own = point(2)] = points
  for (const one of points) await backUp(await temporary.reopen(), one, { scsi0: disk('r') })
  const { datastore } = await temporary.reopen()
  await verifyBackup(await temporary.reopen(), noted)
  await datastore.mark(noted, { notes: 'from the first day' })
  await using place = await openPlace({ folder: join(home, 'marks') })
  await syncDatastore(datastore, place, deps)
  const copy = await openDatastore(place, deps)
  const there = async () => Promise.all(points.map((one) => copy.marks(one)))
  assert.deepEqual(await there(), [{ notes: 'from the first day' }, {}, {}])
  await copy.mark(own, { notes: 'of the copy', protected: true, verified: 1 })
  await datastore.mark(noted, { notes: 'changed' })
  await datastore.mark(guarded, { notes: 'keep it', protected: true, verified: 2 })
  await datastore.mark(own, { notes: 'of the source', protected: false })
  await syncDatastore(datastore, place, deps)
  const said = [
    { notes: 'from the first day' },
    { notes: 'keep it', protected: true },
    { notes: 'of the copy', protected: true, verified: 1 },
  ]
  assert.deepEqual(await there(), said)
  await datastore.mark(guarded, { protected: false })
  await syncDatastore(datastore, place, deps)
  assert.deepEqual(await there(), said)
})

test('whoever copies goes on after kill -9 where it was, out to another Hakobune and back from there', async () => {
  await using temporary = await temporaryDatastore()
  const contents = [0, 1, 2].map(() => disk('rrrrrrrr'))
  for (const [time, content] of contents.entries())
    await backUp(await temporary.reopen(), point(time), { scsi0: content })
  const [away, back]: PlaceSpec[] = [{ https: server.reach('killed') }, { folder: join(home, 'back') }]
  for (const [from, to] of [
    [{ folder: temporary.path }, away],
    [away, back],
  ] as const) {
    assert.ok(from && to)
    // A pack of a megabyte in a second: it dies while it waits, after the first.
    const program = join(import.meta.dirname, '../../../test/fixtures/sync-once.ts')
    const args = [...nodeFlags, program, ...[from, to].map((spec) => JSON.stringify(spec))]
    const child = spawn(process.execPath, [...args, String(MiB)], { stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = once(child, 'exit')
    await once(createInterface(child.stdout), 'line')
    child.kill('SIGKILL')
    assert.deepEqual(await ended, [null, 'SIGKILL'])
    await using place = await openPlace(to)
    const came = async () => (await Array.fromAsync(place.list('packs/'))).length
    const first = await came()
    assert.ok(first >= 1)
    assert.deepEqual(await (await openDatastore(place, deps)).points(), [])
    await using source = await openPlace(from)
    const { backups, packs } = await syncDatastore(await openDatastore(source, deps), place, deps)
    assert.equal(backups, 3)
    assert.ok(packs > 0 && first + packs === (await came()), `${first} packs were there, ${packs} came`)
    const open = await (await openDatastore(place, deps)).unlock(secret)
    for (const [time, content] of contents.entries()) {
      assert.ok((await restored(open, point(time), 'scsi0')).equals(content))
    }
  }
})
