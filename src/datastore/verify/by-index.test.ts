/** A check finds what it reads as a restore does that begins anywhere: by the index, and not by what it read before. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { disk } from '../../../test/fixtures/datastore.ts'
import { backUp, point, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { kindOf, kinds } from '../format.ts'
import { allEntries, replaceSegments } from '../index/merge.ts'
import type { SegmentEntry } from '../index/segment.ts'
import { openPlace } from '../../../test/fixtures/any-place.ts'
import { verifyBackup } from './verify.ts'
import { verifyEverything } from './verify-everything.ts'

for (const [what, kind] of [
  ['a chunk of a disk', kinds.content],
  ['a piece of its map', kinds.map],
] as const) {
  test(`${what} the index does not name is missed, though its pack has it beside others`, async () => {
    await using temporary = await temporaryDatastore()
    await backUp(await temporary.reopen(), point(0), { scsi0: disk('rrrr') })
    const open = await temporary.reopen()
    const { datastore, index, keyring } = open
    const entries = (await Array.fromAsync(allEntries(index.segments))).flat()
    const [lost] = entries.filter(({ flags }) => kindOf(flags) === kind).toSorted((a, b) => a.offset - b.offset)
    assert.ok(lost)
    await using place = await openPlace({ folder: temporary.path })
    const needs = { place, keyring, random: datastore.deps.random }
    const keeps = ({ id }: SegmentEntry) => !id.equals(lost.id)
    await replaceSegments(needs, index.segments, { keeps, best: async () => 0 })
    const damaged = (fault: unknown) => isFault(fault, 'damaged') && /is in no pack/.test(fault.message)
    await assert.rejects(verifyBackup(await temporary.reopen(), point(0)), damaged)
    const verdicts = await Array.fromAsync(verifyEverything(await temporary.reopen()))
    assert.equal(verdicts.filter(({ damage }) => damage !== undefined).length, 1)
    await datastore.remove(point(0))
  })
}
