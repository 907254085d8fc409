/** What the datastore promises whoever uses it, one thing at a time. */
import assert from 'node:assert/strict'
import { stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import { deps, disk, filesBelow, memorySource, memoryTarget } from '../../test/fixtures/datastore.ts'
import { backUp, point, restored, temporaryDatastore } from '../../test/fixtures/sealed-datastore.ts'
import { openDatastore } from './datastore.ts'
import { FolderPlace } from './places/folder-place.ts'
import { coding, defaultChunkBytes as chunkBytes } from './format.ts'
import { collectGarbage } from './collect/garbage.ts'
import { restoreDisk } from './restore/restore-disk.ts'
import { seal } from './sealed.ts'
import { fileSource } from './backup/source/file.ts'
import { contentOf } from './packs/stored-form.ts'

/** Without what every datastore has. */
async function contentBelow(path: string): Promise<string[]> {
  return (await filesBelow(path)).filter((name) => !/^(?:format|reserve|keys\/.*)$/.test(name))
}

test('zero chunks are neither stored nor written', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  const { disks } = await backUp(open, point(0), { scsi0: disk('..r.....') })
  assert.equal(disks[0]?.chunks, 1)
  await using reader = await open.open(point(0))
  const target = memoryTarget(8 * chunkBytes)
  assert.equal(await restoreDisk(reader, 'scsi0', target), chunkBytes)
  assert.equal(target.writes, 1)
})

test('nothing of a backup is visible before its commit, and an abort leaves nothing', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  const writer = await open.begin(point(0))
  await writer.addDisk('scsi0', memorySource(disk('rrr')))
  assert.deepEqual(await open.datastore.list(), [])
  await assert.rejects(open.open(point(0)), (error) => isFault(error, 'missing'))
  await writer.abort()
  await collectGarbage(open)
  assert.deepEqual(await contentBelow(temporary.path), [])
})

test('removing the last backup gives all space back', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  await backUp(open, point(0), { scsi0: disk('rrrr') })
  await open.datastore.mark(point(0), { notes: 'soon gone' })
  await open.datastore.remove(point(0))
  await collectGarbage(open)
  assert.deepEqual(
    (await contentBelow(temporary.path)).filter((name) => !name.startsWith('segments/')),
    [],
  )
})

test('a backup that exists cannot be made again, whoever was first', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  await using late = await open.begin(point(0))
  await late.addDisk('scsi0', memorySource(disk('r')))
  const content = disk('t')
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  await assert.rejects(open.begin(point(0)), (error) => isFault(error, 'conflict'))
  await assert.rejects(late.commit(), (error) => isFault(error, 'conflict'))
  await late.abort()
  assert.ok((await restored(open, point(0), 'scsi0')).equals(content))
})

test('a backup being read stays readable when it is removed, and its space comes back after the last reader', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrr')
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  const collector = await temporary.reopen()
  {
    const open = await temporary.reopen()
    await using reader = await open.open(point(0))
    await collector.datastore.remove(point(0))
    const { waitsFor } = await collectGarbage(collector)
    assert.match(waitsFor ?? '', /a removed backup that is still read by/)
    const target = memoryTarget(content.length)
    await restoreDisk(reader, 'scsi0', target)
    assert.ok(target.content.equals(content))
  }
  await collectGarbage(collector)
  assert.deepEqual(await filesBelow(join(temporary.path, 'packs')), [])
})

test('two writers that store the same content do not depend on one another', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrr')
  const [one, other] = [await temporary.reopen(), await temporary.reopen()]
  await using fails = await one.begin(point(0, '100'))
  await using commits = await other.begin(point(0, '101'))
  await fails.addDisk('scsi0', memorySource(content))
  await commits.addDisk('scsi0', memorySource(content))
  await fails.abort()
  await collectGarbage(await temporary.reopen())
  await commits.commit()
  await collectGarbage(await temporary.reopen())
  assert.ok((await restored(await temporary.reopen(), point(0, '101'), 'scsi0')).equals(content))
})

test('a datastore of another version is refused by name', async () => {
  await using temporary = await temporaryDatastore()
  await writeFile(join(temporary.path, 'format'), seal({ format: 'hakobune-datastore', version: 7 }))
  await assert.rejects(temporary.reopen(), /has format version 7; this program reads version 2/)
  await using nowhere = new FolderPlace(join(temporary.path, 'nowhere'), systemRandom)
  await assert.rejects(openDatastore(nowhere, deps), /does not exist/)
})

test('any pattern of data and holes comes back, whatever the hints about holes say', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  let time = 0
  const run = fc.record({
    length: fc.integer({ min: 1, max: 3 * chunkBytes }),
    kind: fc.constantFrom('hole', 'zeros', 'data'),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(run, { maxLength: 24 }), fc.integer(), async (runs, seed) => {
      const parts: Buffer[] = []
      const extents: { offset: number; length: number; isZero: boolean }[] = []
      let offset = 0
      for (const [number, { length, kind }] of runs.entries()) {
        parts.push(Buffer.alloc(length, kind === 'data' ? `${seed} ${number}` : 0))
        extents.push({ offset, length, isZero: kind === 'hole' })
        offset += length
      }
      const content = Buffer.concat(parts)
      const name = point(time++)
      await using writer = await open.begin(name)
      await writer.addDisk('scsi0', memorySource(content, extents))
      await writer.commit()
      assert.ok((await restored(open, name, 'scsi0')).equals(content))
      await using reader = await open.open(name)
      const [from, to] = [Math.floor(content.length / 3), Math.floor(content.length / 2)]
      const part = Buffer.alloc(to - from, 1)
      await (await reader.openDisk('scsi0')).read(from, part)
      assert.ok(part.equals(content.subarray(from, to)))
    }),
    { numRuns: 30 },
  )
})

test('a sparse image file comes back equal and sparse', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  const [from, to] = [join(temporary.path, 'from.raw'), join(temporary.path, 'to.raw')]
  const host = machine()
  await host.run(['truncate', '-s', '256M', from])
  await host.run(['dd', 'if=/dev/urandom', `of=${from}`, 'bs=1M', 'count=3', 'seek=200', 'conv=notrunc'])
  await host.run(['truncate', '-s', '256M', to])
  await using source = await fileSource(from, host)
  await using writer = await open.begin(point(0))
  const { dataBytes } = await writer.addDisk('scsi0', source)
  await writer.commit()
  assert.equal(dataBytes, 3 * MiB)
  await using reader = await open.open(point(0))
  await restoreDisk(reader, 'scsi0', to)
  await host.run(['cmp', from, to])
  assert.ok((await stat(to)).blocks * 512 < 4 * MiB)
})

test('a source that fails leaves no backup, and says why', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  const source = memorySource(disk('rrrrrrrrrrrrrrrrrrrr'))
  const broken = {
    ...source,
    read: async (offset: number, into: Uint8Array) => {
      if (offset > MiB) throw new Error('the disk is on fire')
      await source.read(offset, into)
    },
  }
  {
    await using writer = await open.begin(point(0))
    await assert.rejects(writer.addDisk('scsi0', broken), /on fire/)
  }
  await collectGarbage(open)
  assert.deepEqual(await contentBelow(temporary.path), [])
})

test('a source with wild extents is refused before anything is read', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  for (const extents of [
    [{ offset: 0, length: 10, isZero: false }],
    [{ offset: 0, length: 2 * chunkBytes, isZero: false }],
    [{ offset: 5, length: chunkBytes - 5, isZero: false }],
    [{ offset: 0, length: 0, isZero: true }],
  ]) {
    await using writer = await open.begin(point(9))
    await assert.rejects(writer.addDisk('scsi0', memorySource(disk('r'), extents)), /the source describes/)
  }
})

test('a few hostile bytes cannot grow into gigabytes', () => {
  const bomb = zstdCompressSync(Buffer.alloc(64 * MiB))
  assert.throws(() => contentOf(bomb, coding.zstd, chunkBytes))
})
