/** Any byte of a datastore may turn: it is found, named, and never becomes wrong data. */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { readdir, readFile, readlink, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { Fault, isFault } from '#base/fault.ts'
import { asDigest, type Digest } from '#base/ids.ts'
import {
  at,
  backUp,
  disk,
  filesBelow,
  memorySource,
  memoryTarget,
  temporaryDatastore,
} from '../../test/fixtures/datastore.ts'
import { printBackupId } from '#datastore/backup-id.ts'
import { blobHeaderBytes, decodeBlob, encodeBlob } from './blob.ts'
import { digestOf } from './digest.ts'
import { chunkBytes } from './format.ts'
import { parseManifest } from './manifest.ts'
import { readPackTable } from './pack.ts'
import { restoreDisk } from './restore.ts'
import { seal, unseal } from '#datastore/sealed.ts'
import { verifyBackup } from './verify.ts'
import { verifyDatastore } from './verify-datastore.ts'

async function flip(path: string, offset: number): Promise<() => Promise<void>> {
  const content = await readFile(path)
  const changed = Buffer.from(content)
  changed[offset] = (changed[offset] ?? 0) ^ (1 << randomInt(8))
  await writeFile(path, changed)
  return () => writeFile(path, content)
}

/** Where to turn a byte: the ends, and some places between. */
function places(length: number): number[] {
  return [0, 9, length - 1, length - 20, ...Array.from({ length: 12 }, () => randomInt(length))].filter(
    (place) => place >= 0 && place < length,
  )
}

test('a turned byte in any file is found by verifying, with the name of the file or chunk', async () => {
  await using temporary = await temporaryDatastore()
  const { path, datastore } = temporary
  const first = disk('rt.r')
  await backUp(datastore, at(0), { scsi0: first })
  await backUp(datastore, at(1), { scsi0: disk('rr'), virtio0: disk('..t') })
  await datastore.mark(at(0), { notes: 'kept' })
  await verifyDatastore(datastore)
  for (const file of await filesBelow(path)) {
    if (file === 'lock') continue
    const length = (await readFile(join(path, file))).length
    for (const place of places(length)) {
      const mend = await flip(join(path, file), place)
      const expected = nameOf(file)
      await assert.rejects(
        async () => verifyDatastore(await temporary.reopen()),
        (error) => isFault(error, 'damaged') && expected.test(error.message),
        `byte ${place} of ${length} in ${file}`,
      )
      if (!file.startsWith('packs') && !file.includes('00Z/scsi0')) {
        await mend()
        continue
      }
      // What a restore returns is right, or it is a fault.
      await using reader = await datastore.open(at(0)).catch(() => undefined)
      const target = memoryTarget(first.length)
      const outcome = reader
        ? await restoreDisk(reader, 'scsi0', target).catch((error: unknown) => error)
        : new Fault('damaged', '')
      if (!isFault(outcome, 'damaged')) assert.ok(target.content.equals(first))
      await mend()
    }
  }
  await verifyDatastore(await temporary.reopen())
})

function nameOf(file: string): RegExp {
  const [, pack] = /^packs\/..\/([0-9a-f]{64})$/.exec(file) ?? []
  if (pack) return new RegExp(`pack ${pack}`)
  const [, index, moment] = /^backups\/vm\/100\/(.*)\/(.*)\.index$/.exec(file) ?? []
  if (index) return new RegExp(`index ${moment} of backup vm/100/${index}`)
  const [, backup] = /^(?:backups|marks)\/(vm\/100\/[^/]*Z)/.exec(file) ?? []
  return backup ? new RegExp(backup) : /format'/
}

test('a backup that cannot be opened leaves no file open', async () => {
  await using temporary = await temporaryDatastore()
  const { path, datastore } = temporary
  await backUp(datastore, at(0), { scsi0: disk('r'), virtio0: disk('t') })
  await flip(join(path, 'backups', printBackupId(at(0)), 'virtio0.index'), 0)
  await assert.rejects(datastore.open(at(0)), /index virtio0 .* is damaged/)
  const open = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  )
  assert.deepEqual(
    open.filter((file) => file.endsWith('.index')),
    [],
  )
})

test('a turned byte inside a chunk names that chunk, in a restore as in a verification', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  await backUp(datastore, at(0), { scsi0: disk('rtrt') })
  const pack = await onlyPack(temporary.path)
  const entries = await readPackTable(datastore.layout.pack(pack), 'it')
  for (const { digest, offset, length } of entries) {
    const mend = await flip(datastore.layout.pack(pack), offset + randomInt(length))
    const named = new RegExp(`chunk ${digest.toString('hex')} in pack ${pack} at ${offset} is damaged`)
    await using reader = await datastore.open(at(0))
    await assert.rejects(verifyBackup(reader), named)
    await assert.rejects(restoreDisk(reader, 'scsi0', memoryTarget(4 * chunkBytes)), named)
    await assert.rejects(verifyDatastore(datastore), named)
    await mend()
  }
})

test('every damaged chunk is named, not only the first', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  await backUp(datastore, at(0), { scsi0: disk('rrrrr') })
  const pack = await onlyPack(temporary.path)
  const entries = await readPackTable(datastore.layout.pack(pack), 'it')
  for (const { offset } of entries.slice(1, 4)) await flip(datastore.layout.pack(pack), offset + 100)
  await using reader = await datastore.open(at(0))
  const error: unknown = await verifyBackup(reader).catch((cause: unknown) => cause)
  assert.ok(isFault(error, 'damaged'))
  for (const { digest } of entries.slice(1, 4)) assert.ok(error.message.includes(digest.toString('hex')))
})

test('after damage was seen the next backup stores those chunks anew and is whole', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  const content = disk('rrr')
  await backUp(datastore, at(0), { scsi0: content })
  const pack = await onlyPack(temporary.path)
  await flip(datastore.layout.pack(pack), 5000)
  {
    await using reader = await datastore.open(at(0))
    await assert.rejects(verifyBackup(reader), /is damaged/)
  }
  const manifest = await backUp(datastore, at(1), { scsi0: content })
  assert.equal(manifest.disks[0]?.newChunks, 3)
  await using reader = await datastore.open(at(1))
  await verifyBackup(reader)
})

test('a pack that is gone is named with the backups it hits, and made again by the next backup', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  const content = disk('rrr')
  await backUp(datastore, at(0), { scsi0: content })
  const pack = await onlyPack(temporary.path)
  await rm(datastore.layout.pack(pack))
  await assert.rejects(verifyDatastore(datastore), new RegExp(`pack ${pack} is gone .hits ${printBackupId(at(0))}`))
  {
    await using reader = await datastore.open(at(0))
    await assert.rejects(verifyBackup(reader), new RegExp(`pack ${pack} is damaged: it is gone`))
  }
  await backUp(datastore, at(1), { scsi0: content })
  await verifyDatastore(datastore)
})

test('a damaged manifest is listed with its damage, and no pack is deleted because of it', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  await backUp(datastore, at(0), { scsi0: disk('r') })
  await backUp(datastore, at(1), { scsi0: disk('r') })
  await backUp(datastore, at(2), { scsi0: disk('r') })
  const mend = await flip(datastore.layout.manifest(at(1)), 100)
  const [, second] = await datastore.list()
  assert.match(second?.damage ?? '', new RegExp(`manifest of backup ${printBackupId(at(1))} is damaged`))
  await datastore.remove(at(0))
  await mend()
  await using reader = await datastore.open(at(1))
  await verifyBackup(reader)
})

test('a backup moved to another name is not taken for that one', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  await backUp(datastore, at(0), { scsi0: disk('r') })
  await rename(datastore.layout.backup(at(0)), datastore.layout.backup(at(5)))
  await assert.rejects(datastore.open(at(5)), /it belongs to another backup/)
})

test('a few hostile bytes cannot grow into gigabytes', () => {
  const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024))
  const digest = digestOf(Buffer.alloc(8))
  const blob = encodeBlob(Buffer.alloc(8), digest)
  const hostile = Buffer.concat([blob.subarray(0, blobHeaderBytes), bomb])
  hostile.writeUInt32LE(1, 4)
  hostile.writeUInt32LE(bomb.length, 12)
  assert.throws(() => decodeBlob(hostile, digest, 'a test'), /is damaged/)
})

test('a manifest with names that lead outside, or with sizes beyond bounds, is refused', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore } = temporary
  await backUp(datastore, at(0), { scsi0: disk('r') })
  const text = await readFile(datastore.layout.manifest(at(0)), 'utf8')
  const change = (from: string, to: string) => seal(JSON.parse(JSON.stringify(unseal(text, 'it')).replace(from, to)))
  for (const [from, to] of [
    ['"name":"scsi0"', '"name":"../../etc/passwd"'],
    ['"name":"guest.conf"', '"name":"/etc/passwd"'],
    ['"sizeBytes":131072', '"sizeBytes":1e300'],
    ['"sizeBytes":131072', '"sizeBytes":-1'],
    ['"format":1', '"format":2'],
    ['"disks":[', '"disks":[{"name":"scsi0"},'],
  ] as const) {
    assert.throws(() => parseManifest(change(from, to), 'the manifest'), Fault, to)
  }
})

async function onlyPack(path: string): Promise<Digest> {
  const packs = (await filesBelow(path)).filter((file) => file.startsWith('packs/'))
  assert.equal(packs.length, 1)
  return asDigest((packs[0] ?? '').slice('packs/00/'.length))
}

test('a source with wild extents is refused before anything is read', async () => {
  await using temporary = await temporaryDatastore()
  for (const extents of [
    [{ offset: 0, length: 10, isZero: false }],
    [{ offset: 0, length: 2 * chunkBytes, isZero: false }],
    [{ offset: 5, length: chunkBytes - 5, isZero: false }],
    [{ offset: 0, length: 0, isZero: true }],
  ]) {
    await using writer = await temporary.datastore.begin(at(9))
    await assert.rejects(writer.addDisk('scsi0', memorySource(disk('r'), extents)), /the source describes/)
  }
})
