/** A copy in which garbage is collected while it is being made: whoever comes first, every backup in it is whole. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { openPlace, type PlaceSpec } from '../../../test/fixtures/any-place.ts'
import { deps, disk } from '../../../test/fixtures/datastore.ts'
import { objectStore } from '../../../test/fixtures/object-store.ts'
import { placeServer } from '../../../test/fixtures/place-server.ts'
import { backUp, point, restored, secret, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { openDatastore, type OpenDatastore } from '../datastore.ts'
import type { Place } from '../places/place.ts'
import { seal } from '../sealed.ts'
import { syncDatastore } from './sync.ts'

const server = await placeServer()
const store = await objectStore()
const home = await mkdtemp(join(tmpdir(), 'hako-beside-'))
after(async () => {
  await server[Symbol.asyncDispose]()
  await store[Symbol.asyncDispose]()
  await rm(home, { recursive: true })
})

const bucket = await store.bucket()
const { endpoint, credentialsFile } = store
const places: Readonly<Record<string, (name: string) => PlaceSpec>> = {
  'a folder': (name) => ({ folder: join(home, name) }),
  'another Hakobune': (name) => ({ https: server.reach(name) }),
  'a bucket': (prefix) => ({ s3: { bucket, prefix, endpoint, credentialsFile } }),
}

const opened = async (place: Place): Promise<OpenDatastore> => (await openDatastore(place, deps)).unlock(secret)

/** A sync that is begun, and on until it has ended or waits for somebody. */
async function begun(source: OpenDatastore, place: Place): Promise<{ readonly ending: Promise<unknown> }> {
  const waits = Promise.withResolvers<void>()
  const sleep = async (ms: number, signal?: AbortSignal) => {
    if (ms < 60_000) waits.resolve()
    await systemClock.sleep(ms, signal)
  }
  const ending = syncDatastore(source.datastore, place, { ...deps, clock: { ...systemClock, sleep } })
  await Promise.race([ending, waits.promise])
  return { ending }
}

for (const [where, spec] of Object.entries(places)) {
  test(`packs a sync that died has left in ${where} are in the copy though a collector took them for garbage`, async () => {
    await using temporary = await temporaryDatastore()
    const content = disk('rrrr')
    await backUp(await temporary.reopen(), point(0), { scsi0: content })
    const source = await temporary.reopen()
    await using died = await openPlace(spec('left'))
    const { putFile } = died
    const dies = async (name: string, path: string) => {
      if (name.startsWith('segments/')) throw new Error('it died')
      return putFile.call(died, name, path)
    }
    Object.assign(died, { putFile: dies })
    await assert.rejects(syncDatastore(source.datastore, died, deps), /it died/)
    await using collecting = await openPlace(spec('left'))
    await using place = await openPlace(spec('left'))
    const { list } = collecting
    let sync: Awaited<ReturnType<typeof begun>> | undefined
    const slowly = async function* (folder: string) {
      // It has made out what is garbage, and looks at backups now.
      if (folder === 'backups/') sync ??= await begun(source, place)
      yield* list.call(collecting, folder)
    }
    Object.assign(collecting, { list: slowly })
    assert.equal((await collectGarbage(await opened(collecting))).removedPacks, 2)
    await sync?.ending
    assert.ok((await restored(await opened(place), point(0), 'scsi0')).equals(content))
  })

  test(`a backup that was removed in ${where} and comes again while its chunks are removed is whole`, async () => {
    await using temporary = await temporaryDatastore()
    const content = disk('rrrr')
    await backUp(await temporary.reopen(), point(0), { scsi0: content })
    const source = await temporary.reopen()
    await using place = await openPlace(spec('again'))
    await syncDatastore(source.datastore, place, deps)
    await (await openDatastore(place, deps)).remove(point(0))
    await using collecting = await openPlace(spec('again'))
    const { remove } = collecting
    let sync: Awaited<ReturnType<typeof begun>> | undefined
    const slowly = async (name: string) => {
      if (name.startsWith('packs/')) sync ??= await begun(source, place)
      return remove.call(collecting, name)
    }
    Object.assign(collecting, { remove: slowly })
    assert.equal((await collectGarbage(await opened(collecting))).removedPacks, 2)
    await sync?.ending
    assert.ok((await restored(await opened(place), point(0), 'scsi0')).equals(content))
  })

  test(`nobody collects garbage in ${where} while a sync makes backups visible there`, async () => {
    await using temporary = await temporaryDatastore()
    const contents = [disk('rrrr'), disk('rr')]
    for (const [time, content] of contents.entries())
      await backUp(await temporary.reopen(), point(time), { scsi0: content })
    const source = await temporary.reopen()
    await using place = await openPlace(spec('visible'))
    await syncDatastore(source.datastore, place, deps)
    const copy = await opened(place)
    await copy.datastore.remove(point(0))
    // Condemned, and left for the next time.
    assert.ok((await collectGarbage(copy, { graceSeconds: 60 })).condemnedChunks > 0)
    const { put } = place
    const refusals: unknown[] = []
    const beside = async (name: string, bytes: Uint8Array) => {
      if (name.startsWith('backups/')) {
        await using other = await openPlace(spec('visible'))
        refusals.push(await collectGarbage(await opened(other)).catch((fault: unknown) => fault))
      }
      return put.call(place, name, bytes)
    }
    Object.assign(place, { put: beside })
    assert.equal((await syncDatastore(source.datastore, place, deps)).backups, 1)
    assert.ok(refusals.length > 0 && refusals.every((fault) => isFault(fault, 'conflict')))
    await collectGarbage(await opened(place))
    for (const [time, content] of contents.entries())
      assert.ok((await restored(await opened(place), point(time), 'scsi0')).equals(content))
  })
}

test('who only adds makes a copy beside the lease of somebody who died', async () => {
  await using temporary = await temporaryDatastore()
  await backUp(await temporary.reopen(), point(0), { scsi0: disk('r') })
  const source = (await temporary.reopen()).datastore
  await using owner = await openPlace({ https: server.reach('dead', ['read', 'write', 'delete']) })
  await syncDatastore(source, owner, deps)
  const name = 'leases/of-one-that-died'
  const lease = { kind: 'collect', began: 1, renewed: 1, by: 'somebody' }
  await owner.replace(name, Buffer.from(seal(lease)))
  await backUp(await temporary.reopen(), point(1), { scsi0: disk('r') })
  await using adding = await openPlace({ https: server.reach('dead', ['write']) })
  assert.equal((await syncDatastore(source, adding, deps)).backups, 1)
})
