import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import {
  at,
  backUp,
  deps,
  disk,
  filesBelow,
  memorySource,
  memoryTarget,
  temporaryDatastore,
} from '../../test/fixtures/datastore.ts'
import { openDatastore } from './datastore.ts'
import { digestOf } from './digest.ts'
import { chunkBytes } from './format.ts'
import type { BackupReader } from './reader.ts'
import { restoreDisk } from './restore.ts'
import { seal } from '#datastore/sealed.ts'
import { fileSource } from '#datastore/source/file.ts'
import { verifyBackup } from './verify.ts'
import { verifyDatastore } from './verify-datastore.ts'
import { createHash, randomUUID } from 'node:crypto'

async function contentOf(reader: BackupReader, name: string): Promise<Buffer> {
  const target = memoryTarget(reader.disk(name).sizeBytes)
  await restoreDisk(reader, name, target)
  return target.content
}

test('what was backed up comes back bit for bit, also at the odd end of a disk', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  const content = Buffer.concat([disk('rt..r0t.....'), Buffer.from('the odd end')])
  await backUp(datastore, at(0), { scsi0: content, efidisk0: disk('.') })
  await using reader = await datastore.open(at(0))
  assert.ok((await contentOf(reader, 'scsi0')).equals(content))
  assert.ok((await contentOf(reader, 'efidisk0')).equals(Buffer.alloc(chunkBytes)))
  assert.equal((await reader.file('guest.conf')).toString(), 'name: one\n')
  const verified = await verifyBackup(reader)
  assert.equal(verified.chunks, 6)
})

test('zero chunks are neither stored nor written', async () => {
  await using temporary = await temporaryDatastore()
  const manifest = await backUp(temporary.datastore, at(0), { scsi0: disk('..r.....') })
  assert.equal(manifest.disks[0]?.chunks, 1)
  await using reader = await temporary.datastore.open(at(0))
  const target = memoryTarget(8 * chunkBytes)
  const restored = await restoreDisk(reader, 'scsi0', target)
  assert.equal(target.writes, 1)
  assert.equal(restored.writtenBytes, chunkBytes)
})

test('the digest of a disk is the SHA-256 over the SHA-256s of its chunks', async () => {
  await using temporary = await temporaryDatastore()
  const content = Buffer.concat([disk('r..t.'), Buffer.alloc(1000)])
  const manifest = await backUp(temporary.datastore, at(0), { scsi0: content })
  const hash = createHash('sha256')
  for (let offset = 0; offset < content.length; offset += chunkBytes) {
    hash.update(digestOf(content.subarray(offset, offset + chunkBytes)))
  }
  assert.equal(manifest.disks[0]?.digest, hash.digest('hex'))
})

test('a second backup stores only what changed, and outlives the first', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  const first = disk('rrrrrrrr')
  const second = Buffer.concat([first.subarray(0, 3 * chunkBytes), disk('r'), first.subarray(4 * chunkBytes)])
  await backUp(datastore, at(0), { scsi0: first })
  const manifest = await backUp(datastore, at(1), { scsi0: second })
  assert.equal(manifest.disks[0]?.newChunks, 1)
  await datastore.remove(at(0))
  await using reader = await datastore.open(at(1))
  assert.ok((await contentOf(reader, 'scsi0')).equals(second))
  await assert.rejects(datastore.open(at(0)), (error) => isFault(error, 'missing'))
})

test('another guest with the same system shares its chunks', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrr')
  await backUp(temporary.datastore, at(0, '100'), { scsi0: content })
  const manifest = await backUp(temporary.datastore, at(0, '101'), { virtio3: content })
  assert.equal(manifest.disks[0]?.newChunks, 0)
})

test('removing the last backup gives all space back', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore, path } = temporary
  await backUp(datastore, at(0), { scsi0: disk('rrrr') })
  await datastore.mark(at(0), { notes: 'soon gone' })
  await datastore.remove(at(0))
  assert.deepEqual((await filesBelow(path)).sort(), ['format', 'lock'])
  assert.deepEqual(await datastore.list(), [])
})

test('nothing of a backup is visible before its commit, and an abort leaves nothing', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore, path } = temporary
  const writer = await datastore.begin(at(0))
  await writer.addDisk('scsi0', memorySource(disk('rrr')))
  assert.deepEqual(await datastore.list(), [])
  await assert.rejects(datastore.open(at(0)), (error) => isFault(error, 'missing'))
  await writer.abort()
  assert.deepEqual((await filesBelow(path)).sort(), ['format', 'lock'])
})

test('a backup that exists cannot be made again, whoever was first', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  await using late = await datastore.begin(at(0))
  await late.addDisk('scsi0', memorySource(disk('r')))
  await backUp(datastore, at(0), { scsi0: disk('t') })
  await assert.rejects(datastore.begin(at(0)), (error) => isFault(error, 'conflict'))
  await assert.rejects(late.commit(), (error) => isFault(error, 'conflict'))
  await late.abort()
  await using reader = await datastore.open(at(0))
  await verifyBackup(reader)
})

test('a backup being read stays readable when it is removed, and its space comes back with the last reader', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore, path } = temporary
  const content = disk('rrrr')
  await backUp(datastore, at(0), { scsi0: content })
  {
    await using reader = await datastore.open(at(0))
    await datastore.remove(at(0))
    assert.deepEqual(await datastore.list(), [])
    assert.ok((await contentOf(reader, 'scsi0')).equals(content))
  }
  assert.deepEqual((await filesBelow(path)).sort(), ['format', 'lock'])
})

test('a sweep beside a writer takes nothing that writer relies on', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  const content = disk('rrrr')
  await backUp(datastore, at(0), { scsi0: content })
  await using writer = await datastore.begin(at(1))
  await writer.addDisk('scsi0', memorySource(content))
  await datastore.remove(at(0))
  assert.equal((await datastore.sweep()).state, 'postponed')
  await writer.commit()
  await using reader = await datastore.open(at(1))
  await verifyBackup(reader)
})

test('two writers that store the same pack do not depend on one another', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  const content = disk('rrrr')
  const fails = await datastore.begin(at(0, '100'))
  await using commits = await datastore.begin(at(0, '101'))
  await fails.addDisk('scsi0', memorySource(content))
  await commits.addDisk('scsi0', memorySource(content))
  await fails.commit()
  await datastore.remove(at(0, '100'))
  await commits.commit()
  await using reader = await datastore.open(at(0, '101'))
  assert.ok((await contentOf(reader, 'scsi0')).equals(content))
  await verifyDatastore(await temporary.reopen())
})

test('a protected backup is not removed; notes and protection change without touching the backup', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  await backUp(datastore, at(0), { scsi0: disk('r') })
  const before = await readFile(datastore.layout.manifest(at(0)))
  await datastore.mark(at(0), { notes: 'before the upgrade' })
  await datastore.mark(at(0), { protected: true })
  await assert.rejects(datastore.remove(at(0)), /is protected/)
  assert.deepEqual((await datastore.list())[0]?.marks, { notes: 'before the upgrade', protected: true })
  assert.ok((await readFile(datastore.layout.manifest(at(0)))).equals(before))
  await datastore.mark(at(0), { protected: false })
  await datastore.remove(at(0))
})

test('a datastore of another version is refused by name', async () => {
  const path = await mkdtemp(join(tmpdir(), 'hako-datastore-'))
  try {
    await writeFile(
      join(path, 'format'),
      seal({ format: 'hakobune-datastore', version: 7, chunkBytes, digest: 'sha256' }),
    )
    await assert.rejects(
      openDatastore(path, deps, { create: true }),
      /has format version 7; this program reads version 1/,
    )
    await assert.rejects(openDatastore(join(path, 'nowhere'), deps), /does not exist/)
  } finally {
    await rm(path, { recursive: true })
  }
})

test('any pattern of data and holes comes back, whatever the hints about holes say', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
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
      const id = at(time++)
      await using writer = await datastore.begin(id)
      await writer.addDisk('scsi0', memorySource(content, extents))
      await writer.commit()
      await using reader = await datastore.open(id)
      assert.ok((await contentOf(reader, 'scsi0')).equals(content))
      const [from, to] = [Math.floor(content.length / 3), Math.floor(content.length / 2)]
      const part = Buffer.alloc(to - from, 1)
      await reader.disk('scsi0').read(from, part)
      assert.ok(part.equals(content.subarray(from, to)))
    }),
    { numRuns: 60 },
  )
})

test('a sparse image file comes back equal and sparse', async () => {
  await using temporary = await temporaryDatastore()
  const [from, to] = [join(temporary.path, 'from.raw'), join(temporary.path, 'to.raw')]
  const host = machine()
  await host.run(['truncate', '-s', '256M', from])
  await host.run(['dd', 'if=/dev/urandom', `of=${from}`, 'bs=1M', 'count=3', 'seek=200', 'conv=notrunc'])
  await host.run(['truncate', '-s', '256M', to])
  await using source = await fileSource(from, host)
  await using writer = await temporary.datastore.begin(at(0))
  const facts = await writer.addDisk('scsi0', source)
  await writer.commit()
  assert.equal(facts.dataBytes, 3 * 1024 * 1024)
  await using reader = await temporary.datastore.open(at(0))
  await restoreDisk(reader, 'scsi0', to)
  await host.run(['cmp', from, to])
  assert.ok((await stat(to)).blocks * 512 < 4 * 1024 * 1024)
})

test('a source that fails leaves no backup, and says why', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrrrrrrrrrrrrrrrrrr')
  const source = memorySource(content)
  const broken = {
    ...source,
    read: async (offset: number, into: Uint8Array) => {
      if (offset > 1024 * 1024) throw new Error('the disk is on fire')
      await source.read(offset, into)
    },
  }
  {
    await using writer = await temporary.datastore.begin(at(0))
    await assert.rejects(writer.addDisk('scsi0', broken), /on fire/)
  }
  assert.deepEqual((await filesBelow(temporary.path)).sort(), ['format', 'lock'])
})

test('what somebody left who was killed while marking a backup is gone at the next opening', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore, path, reopen } = temporary
  await backUp(datastore, at(0), { scsi0: disk('r') })
  await datastore.mark(at(0), { notes: 'kept' })
  const before = await filesBelow(path)
  const marks = dirname(before.find((file) => file.startsWith('marks/')) ?? '')
  await writeFile(join(path, marks, '.6a0e.tmp'), 'half')
  await writeFile(join(path, 'readers', randomUUID()), '')
  // Whoever lives keeps the sweep off.
  {
    await using reader = await datastore.open(at(0))
    await reopen()
    assert.ok((await filesBelow(path)).some((file) => file.endsWith('.tmp')) && reader)
  }
  await reopen()
  assert.deepEqual((await filesBelow(path)).toSorted(), before.toSorted())
  assert.equal((await datastore.marks(at(0))).notes, 'kept')
})
