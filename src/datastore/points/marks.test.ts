/** What is said of a backup stays said, whoever else says something at the same moment. */
import assert from 'node:assert/strict'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { deps, disk, memorySource } from '../../../test/fixtures/datastore.ts'
import { openPlace } from '../../../test/fixtures/any-place.ts'
import { placeServer } from '../../../test/fixtures/place-server.ts'
import { backUp, point, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { syncDatastore } from '../copy/sync.ts'
import { openDatastore } from '../datastore.ts'
import { verifyBackup } from '../verify/verify.ts'
import { listOpened } from './listing.ts'
import { foundName, marksName, printMarks } from './marks.ts'

const isConflict = (fault: unknown) => isFault(fault, 'conflict')

test('of two who make a backup of one name the one that comes too late changes nothing about the other', async () => {
  await using temporary = await temporaryDatastore()
  for (const [time, marks] of [{ protected: true, notes: 'keep me' }, undefined].entries()) {
    const [early, late] = [await temporary.reopen(), await temporary.reopen()]
    await using first = await early.begin(point(time))
    await using second = await late.begin(point(time))
    for (const writer of [first, second]) await writer.addDisk('scsi0', memorySource(disk('r')))
    await first.commit({ marks })
    await assert.rejects(second.commit({ marks: { notes: 'too late' } }), isConflict)
    assert.deepEqual(await early.datastore.marks(point(time)), marks ?? {})
  }
})

test('marks of a backup that was never finished make way for those of the one that is, but what they protect stays so', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = await temporary.reopen()
  const left = [
    { notes: 'cut off', damage: 'some' },
    { notes: 'cut off', protected: true },
  ]
  for (const [time, marks] of left.entries()) {
    await datastore.place.put(marksName(point(time)), Buffer.from(printMarks(marks)))
    await using writer = await (await temporary.reopen()).begin(point(time))
    await writer.addDisk('scsi0', memorySource(disk('r')))
    await writer.commit({ marks: { notes: 'done' } })
  }
  assert.deepEqual(await datastore.marks(point(0)), { notes: 'done' })
  assert.deepEqual(await datastore.marks(point(1)), { notes: 'done', protected: true })
})

test('what a check found is told by every list, goes with the backup, and comes along when it is copied', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  await backUp(open, point(0), { scsi0: disk('r') })
  await backUp(open, point(1), { scsi0: disk('r') })
  const { datastore } = open
  const told = async (from = datastore) => [
    (await from.list())[0]?.marks,
    (await listOpened(from, open.keyring))[0]?.marks,
    await from.marks(point(0)),
  ]
  await datastore.mark(point(0), { damage: 'a pack is gone' })
  assert.deepEqual(
    await told(),
    Array.from({ length: 3 }, () => ({ damage: 'a pack is gone' })),
  )
  await verifyBackup(open, point(0))
  await datastore.mark(point(0), { notes: 'good' })
  const [{ verified = 0, ...others } = {}] = await told()
  assert.ok(verified > 0)
  assert.deepEqual(others, { notes: 'good' })
  assert.deepEqual(
    await told(),
    Array.from({ length: 3 }, () => ({ verified, notes: 'good' })),
  )
  await using server = await placeServer()
  await using copy = await openPlace({ https: server.reach('copy', ['write']) })
  await syncDatastore(datastore, copy, deps)
  const there = await openDatastore(copy, deps)
  // What was checked here was not checked there.
  assert.deepEqual(
    await told(there),
    Array.from({ length: 3 }, () => ({ notes: 'good' })),
  )
  // Whoever only adds says nothing of what is there.
  const isDenied = (fault: unknown) => isFault(fault, 'denied')
  await assert.rejects(copy.put(foundName(point(1)), Buffer.from('x')), isDenied)
  await assert.rejects(copy.replace(foundName(point(0)), Buffer.from('x')), isDenied)
  await datastore.remove(point(0))
  for await (const { name } of datastore.place.list('marks/')) assert.fail(name)
})

test('marks of before, which hold all in one, say what they said until somebody looks again', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  const { datastore } = open
  await backUp(open, point(0), { scsi0: disk('r') })
  const old = { notes: 'old', protected: true, verified: 7, damage: 'once', hint: 'much' }
  await datastore.place.put(marksName(point(0)), Buffer.from(printMarks(old)))
  assert.deepEqual(await datastore.marks(point(0)), old)
  await datastore.mark(point(0), { notes: 'new' })
  assert.deepEqual(await datastore.marks(point(0)), { ...old, notes: 'new' })
  await datastore.mark(point(0), { damage: undefined })
  const { damage: _, ...healed } = old
  assert.deepEqual(await datastore.marks(point(0)), { ...healed, notes: 'new' })
  // Gone with a program that knows nothing of it: then it says nothing of whatever gets the name.
  await rm(join(temporary.path, marksName(point(0))))
  assert.deepEqual(await datastore.marks(point(0)), {})
})

test('where nobody can read what a check found, the backup counts as damaged until it is checked again', async () => {
  await using made = await temporaryDatastore()
  const open = await made.reopen()
  const { datastore } = open
  await backUp(open, point(0), { scsi0: disk('r') })
  await datastore.mark(point(0), { protected: true })
  await verifyBackup(open, point(0))
  const path = join(made.path, foundName(point(0)))
  const content = await readFile(path)
  await writeFile(path, content.subarray(0, 40))
  assert.match((await datastore.list())[0]?.damage ?? '', /what was found of vm\/100\/\S+ is damaged/)
  assert.equal((await datastore.marks(point(0))).protected, true)
  await verifyBackup(open, point(0))
  assert.equal((await datastore.list())[0]?.damage, undefined)
})
