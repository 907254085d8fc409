/** Where a chunk lies in several packs, the copy that is whole is the one that stays. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { systemRandom } from '#base/random.ts'
import { deps, disk, filesBelow, memorySource } from '../../../test/fixtures/datastore.ts'
import {
  backUp,
  point,
  restored,
  secret,
  temporaryDatastore,
  type TemporaryDatastore,
} from '../../../test/fixtures/sealed-datastore.ts'
import { type OpenDatastore, openDatastore } from '../datastore.ts'
import { kinds } from '../format.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { withWriter } from '../keys/key-file.ts'
import { packName, PackWriter } from '../packs/pack.ts'
import { writeSegment } from '../index/segment.ts'
import type { SlotSecret } from '../keys/slot.ts'
import { verifyBackup, verifyPacks } from '../verify/verify.ts'
import { privateOf, publicOf } from '../keys/x25519.ts'

const chunk = 128 * KiB

/** Turns a bit in the first chunk of every pack of content there is. @returns their names */
async function damagePacks({ path }: TemporaryDatastore): Promise<string[]> {
  const damaged: string[] = []
  for (const name of await filesBelow(join(path, 'packs'))) {
    const bytes = await readFile(join(path, 'packs', name))
    if (bytes.readUInt32LE(12) === 1) continue
    bytes.writeUInt8(bytes.readUInt8(60) ^ 1, 60)
    await writeFile(join(path, 'packs', name), bytes)
    damaged.push(name.slice(-64))
  }
  return damaged
}

test('what was stored anew in the place of what is damaged stays, and that goes', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrr')
  await backUp(await temporary.reopen(), point(0), { scsi0: Buffer.concat([content, disk('r')]) })
  await backUp(await temporary.reopen(), point(1), { scsi0: content })
  const packs = await damagePacks(temporary)
  assert.deepEqual((await verifyPacks((await temporary.reopen()).datastore)).damaged, packs)
  await backUp(await temporary.reopen(), point(2), { scsi0: content })
  const open = await temporary.reopen()
  await open.datastore.remove(point(0))
  await collectGarbage(open)
  for (const one of [point(1), point(2)]) {
    await verifyBackup(await temporary.reopen(), one)
    assert.ok((await restored(await temporary.reopen(), one, 'scsi0')).equals(content))
  }
  assert.deepEqual((await verifyPacks(open.datastore)).damaged, [], 'nobody needs what is damaged')
})

test('parts of the index that are merged keep the copy that is whole', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrr')
  // The largest part of the index, which counts first.
  await backUp(await temporary.reopen(), point(0), { scsi0: content, scsi1: disk('rrrrrrrrrrrrrrrr') })
  await damagePacks(temporary)
  await verifyPacks((await temporary.reopen()).datastore)
  // As many of like size as are merged: the first of them stores all of it anew.
  for (let time = 1; time < 8; time += 1) {
    await backUp(await temporary.reopen(), point(time), { scsi0: content, scsi1: disk('rrrrrrrr') })
  }
  const open = await temporary.reopen()
  assert.equal(open.index.segments.length, 1)
  assert.ok((await restored(open, point(0), 'scsi0')).equals(content))
})

test('a damaged pack that is mostly garbage keeps no other garbage from being collected', async () => {
  await using temporary = await temporaryDatastore()
  const shared = disk('r')
  await backUp(await temporary.reopen(), point(0), { scsi0: Buffer.concat([shared, disk('rrrrrrr')]) })
  await backUp(await temporary.reopen(), point(1), { scsi0: shared })
  const [pack = ''] = await damagePacks(temporary)
  await backUp(await temporary.reopen(), point(2, '101'), { scsi0: disk('rrrr') })
  const open = await temporary.reopen()
  for (const one of [point(0), point(2, '101')]) await open.datastore.remove(one)
  const { removedChunks, rewrittenPacks, freedBytes } = await collectGarbage(open)
  assert.ok(removedChunks >= 11 && rewrittenPacks === 0 && freedBytes > 4 * chunk, `${freedBytes} bytes came back`)
  // It is told what was found, so the next backup stores what it has of it.
  await assert.rejects(verifyBackup(open, point(1)), new RegExp(`pack ${pack} is damaged`))
  await backUp(await temporary.reopen(), point(3), { scsi0: shared })
  await verifyBackup(await temporary.reopen(), point(1))
})

test('what was collected stays collected when its pack is written anew later', async () => {
  await using temporary = await temporaryDatastore()
  const [a, b, c] = [disk('rrrr'), disk('rrr'), disk('rrr')]
  for (const [time, parts] of [[a, b, c], [a, b], [a]].entries()) {
    await backUp(await temporary.reopen(), point(time), { scsi0: Buffer.concat(parts) })
  }
  const open = await temporary.reopen()
  await open.datastore.remove(point(0))
  assert.equal((await collectGarbage(open)).rewrittenPacks, 0)
  await open.datastore.remove(point(1))
  const { rewrittenPacks, freedBytes } = await collectGarbage(open)
  assert.equal(rewrittenPacks, 1)
  assert.ok(freedBytes >= 6 * chunk, `${freedBytes} bytes came back`)
  const { chunks, liveChunks } = await collectGarbage(await temporary.reopen())
  assert.equal(chunks, liveChunks)
  assert.ok((await restored(await temporary.reopen(), point(2), 'scsi0')).equals(a))
})

test('what a writer relies on stays, though the clock was set back since it began', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrr')
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  await using writer = await (await temporary.reopen()).begin(point(1))
  const clock = { ...deps.clock, now: () => deps.clock.now() - 3_600_000 }
  const { place } = (await temporary.reopen()).datastore
  const collector = await (await openDatastore(place, { ...deps, clock })).unlock(secret)
  await collector.datastore.remove(point(0))
  for (let night = 0; night < 2; night += 1) {
    const { removedChunks, waitsFor } = await collectGarbage(collector)
    assert.equal(removedChunks, 0)
    assert.match(waitsFor ?? '', /a backup that is being made/)
  }
  assert.equal((await writer.addDisk('scsi0', memorySource(content))).newChunks, 0)
  await writer.commit()
  // Nor does a list of a clock that was ahead wait until it has caught up.
  await collectGarbage(await temporary.reopen())
  assert.deepEqual(await filesBelow(join(temporary.path, 'condemned')), [])
  assert.ok((await restored(await temporary.reopen(), point(1), 'scsi0')).equals(content))
})

const own = Buffer.alloc(32, 5)
const hostKey: SlotSecret = { kind: 'key', key: own }

/** A pack in which chunks lie under ids of others, and a part of the index that names it, larger than any other. */
async function lie(host: OpenDatastore, ids: readonly Buffer[]): Promise<string> {
  const { datastore, keyring } = host
  const { place } = datastore
  const path = join(place.stagingDir, 'lie')
  const pack = await PackWriter.create(path, { keyring, random: systemRandom, isMetadata: false })
  const names = [...ids, ...Array.from({ length: 20 }, () => randomBytes(32))]
  const entries = []
  for (const id of names) entries.push(await pack.append(id, randomBytes(1_000), 1_000, 0))
  const name = await pack.finish()
  await place.putFile(packName(name), path)
  const sorted = entries.toSorted((one, other) => one.id.compare(other.id)).map((entry) => ({ ...entry, pack: name }))
  await writeSegment({ place, keyring, random: systemRandom }, sorted.length, [sorted], [name])
  return name
}

test('a host that only adds destroys nothing by calling its own by the names of others, and suspecting those', async () => {
  for (const suspects of [false, true]) {
    await using temporary = await temporaryDatastore()
    const admin = await temporary.reopen()
    const way = { secret: { kind: 'key', public: publicOf(privateOf(own)) } as const, confirmed: true, created: 0 }
    await admin.datastore.putKeyFile(await withWriter(systemRandom, admin.unlocked, way, ''))
    const content = disk('rr')
    await backUp(await temporary.reopen(), point(0), { scsi0: content })
    await backUp(await temporary.reopen(), point(1), { scsi0: disk('r') })
    const host = await temporary.reopen(hostKey)
    const genuine = (await filesBelow(join(temporary.path, 'packs'))).map((name) => name.slice(-64))
    const ids = [0, 1].map((at) => host.keyring.idOf(kinds.content, content.subarray(at * chunk, (at + 1) * chunk)))
    const name = await lie(host, ids)
    if (suspects) for (const pack of genuine) await host.datastore.place.put(`suspects/${pack}`, Buffer.alloc(0))
    const open = await temporary.reopen()
    await open.datastore.remove(point(1))
    await collectGarbage(open)
    await collectGarbage(await temporary.reopen())
    await verifyPacks(open.datastore)
    const after = await temporary.reopen()
    assert.ok((await restored(after, point(0), 'scsi0')).equals(content))
    assert.ok(!after.index.segments.some(({ packs }) => packs.includes(name)), 'the lie is gone')
  }
})
