/** What the reader makes of archives another program wrote, and of archives that are not what they seem. */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { open, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { gzipSync, zstdCompressSync, constants } from 'node:zlib'
import fc from 'fast-check'
import { KiB, TiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import { type Fault, isFault, messageOf } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { headersOf, sealed, vmaArchive } from '../../../test/fixtures/vma-writer.ts'
import type { BlockTarget } from '#datastore/restore/block-target.ts'
import { compressionOf, openVma } from './open.ts'
import { VmaReader } from './reader.ts'

async function* inPieces(bytes: Buffer, length: number): AsyncGenerator<Uint8Array> {
  for (let from = 0; from < bytes.length; from += length) yield bytes.subarray(from, from + length)
}

function inMemory(sizeBytes: number): BlockTarget & { readonly content: Buffer } {
  const content = Buffer.alloc(sizeBytes)
  return {
    content,
    sizeBytes,
    async write(offset, bytes) {
      assert.ok(offset + bytes.length <= sizeBytes, 'a write behind the end of the disk')
      content.set(bytes, offset)
    },
    async flush() {},
    async [Symbol.asyncDispose]() {},
  }
}

async function contentOf(reader: VmaReader): Promise<Record<string, Buffer>> {
  const targets = new Map(reader.header.devices.map(({ name, sizeBytes }) => [name, inMemory(sizeBytes)]))
  await reader.restore(targets, { clock: systemClock })
  return Object.fromEntries([...targets].map(([name, { content }]) => [name, content]))
}

async function readBack(archive: Buffer, pieceBytes = 100_000) {
  await using reader = await VmaReader.open(inPieces(archive, pieceBytes))
  const configs = Object.fromEntries([...reader.header.configs].map(([name, text]) => [name, text.toString('utf8')]))
  return { configs, devices: await contentOf(reader), ctime: reader.header.ctime }
}

/** Why reading it fails, or `whole`. */
async function verdictOn(archive: Buffer): Promise<string> {
  try {
    await readBack(archive)
    return 'whole'
  } catch (cause) {
    assert.ok(isFault(cause, 'damaged') || isFault(cause, 'invalid'), String((cause as Error).stack))
    return messageOf(cause)
  }
}

/** Data with zeros between, of a length that is any number of sectors. */
const disk = fc
  .array(fc.record({ zeros: fc.integer({ min: 0, max: 40 }), data: fc.integer({ min: 0, max: 40 }) }), {
    minLength: 1,
    maxLength: 12,
  })
  .map((runs) =>
    Buffer.concat([
      ...runs.flatMap(({ zeros, data }) => [Buffer.alloc(zeros * 2048), randomBytes(data * 1536)]),
      Buffer.alloc(512),
    ]),
  )
  .map((bytes) => bytes.subarray(0, bytes.length - (bytes.length % 512)))

const sample = () =>
  vmaArchive({
    configs: { 'qemu-server.conf': 'name: web\n' },
    devices: { 'drive-scsi0': randomBytes(200 * KiB), 'drive-efidisk0': Buffer.alloc(132 * KiB) },
  })

suite('a vma archive', () => {
  test('gives back what its writer was given, whatever the order and the size of the pieces', async () => {
    const name = fc.constantFrom('drive-scsi0', 'drive-virtio1', 'drive-ide0', 'drive-sata3')
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(name, disk, { minKeys: 1 }),
        fc.dictionary(fc.constantFrom('qemu-server.conf', 'qemu-server.fw'), fc.string({ maxLength: 500 })),
        fc.integer({ min: 1000, max: 5_000_000 }),
        fc.boolean(),
        async (devices, configs, pieceBytes, isMixed) => {
          const shuffle = isMixed ? { shuffle: <T>(all: T[]) => all.toSorted(() => randomInt(3) - 1) } : {}
          const archive = vmaArchive({ configs, devices, ctime: 1_700_000_000, ...shuffle })
          const read = await readBack(archive, pieceBytes)
          assert.deepEqual(Object.keys(read.devices).toSorted(), Object.keys(devices).toSorted())
          for (const [key, content] of Object.entries(devices)) assert.ok(read.devices[key]?.equals(content), key)
          assert.deepEqual({ ...read.configs }, { ...configs })
          assert.equal(read.ctime, 1_700_000_000)
        },
      ),
      { numRuns: 40 },
    )
  })

  test('of a device of many extents is read piece by piece', async () => {
    const content = Buffer.concat([randomBytes(9 << 20), Buffer.alloc(5 << 20), randomBytes(3 << 20)])
    const { devices } = await readBack(vmaArchive({ configs: {}, devices: { 'drive-scsi0': content } }), 64 * KiB)
    assert.ok(devices['drive-scsi0']?.equals(content))
  })

  test('that is cut off anywhere is damaged', async () => {
    const archive = sample()
    const edges = headersOf(archive).flatMap(({ from, to }) => [from, from + 1, to - 1, to])
    const lengths = [...edges, ...Array.from({ length: 60 }, () => randomInt(archive.length))]
    for (const length of lengths.filter((one) => one < archive.length)) {
      assert.match(await verdictOn(archive.subarray(0, length)), /it ends|no vma archive/, `${length} bytes`)
    }
    assert.equal(await verdictOn(archive), 'whole')
    assert.match(await verdictOn(Buffer.concat([archive, Buffer.from('x')])), /ends within the header of extent 2/)
  })

  test('with one bit flipped in any header is damaged, and says which', async () => {
    const archive = sample()
    const places = headersOf(archive)
    assert.ok(places.length > 1)
    for (const [index, { from, to }] of places.entries()) {
      const step = Math.max(1, Math.floor((to - from) / 200))
      for (let byte = from; byte < to; byte += index === 0 ? step : 1) {
        const flipped = Buffer.from(archive)
        flipped[byte] = (flipped[byte] ?? 0) ^ (1 << randomInt(8))
        const verdict = await verdictOn(flipped)
        assert.match(verdict, index === 0 ? /header|vma/ : /extent 1/, `byte ${byte}`)
      }
    }
  })

  test('that lies about its sizes, with checksums that hold, is refused before anything is taken for it', async () => {
    const lies: readonly [string, (bytes: Buffer) => void, RegExp][] = [
      ['header', (bytes) => bytes.writeUInt32BE(0xffff_ffff, 56), /header claims to have 4294967295 bytes/],
      ['short header', (bytes) => bytes.writeUInt32BE(100, 56), /header claims to have 100 bytes/],
      ['blobs', (bytes) => bytes.writeUInt32BE(0xffff_fff0, 52), /blobs lie outside/],
      ['blob', (bytes) => bytes.writeUInt16LE(0xffff, 12289), /a blob of its header is cut off/],
      ['version', (bytes) => bytes.writeUInt32BE(2, 4), /vma version 2/],
      ['device', (bytes) => bytes.writeBigUInt64BE(1n << 63n, 4096 + 32 + 8), /device 1 claims to have/],
      ['devices', (bytes) => claims(bytes, BigInt(40 * TiB)), /its devices claim to have/],
      ['name', (bytes) => bytes.writeUInt32BE(3, 4096 + 32), /device 1 has no name/],
      ['no device', (bytes) => bytes.fill(0, 4096, 12288), /names no device/],
      ['twin', (bytes) => bytes.copy(bytes, 4096 + 64, 4096 + 32, 4096 + 36), /two devices called/],
    ]
    for (const [what, lie, says] of lies) {
      const archive = sample()
      const size = archive.readUInt32BE(56)
      lie(archive)
      assert.match(await verdictOn(sealed(archive, size, 32)), says, what)
    }
    function claims(bytes: Buffer, size: bigint): void {
      for (const id of [1, 2]) bytes.writeBigUInt64BE(size, 4096 + id * 32 + 8)
    }
  })

  test('whose extents point where they must not is refused', async () => {
    const entry = (bytes: Buffer, at: number, change: (old: bigint) => bigint) => {
      const place = bytes.readUInt32BE(56) + 40 + at * 8
      bytes.writeBigUInt64BE(change(bytes.readBigUInt64BE(place)), place)
    }
    const lies: readonly [string, (bytes: Buffer) => void, RegExp][] = [
      [
        'behind the end',
        (bytes) => entry(bytes, 1, (old) => old | 0xffff_ffffn),
        /behind the end of device drive-scsi0/,
      ],
      [
        'in the last cluster',
        (bytes) => entry(bytes, 3, (old) => (old & ~(1n << 48n)) | (1n << 63n)),
        /behind the end/,
      ],
      ['twice', (bytes) => entry(bytes, 1, (old) => old & ~0xffn), /cluster 0 of device drive-scsi0 is in it twice/],
      ['unknown device', (bytes) => entry(bytes, 0, (old) => old | (9n << 32n)), /data of device \d+, which/],
      ['block count', (bytes) => bytes.writeUInt16BE(3, bytes.readUInt32BE(56) + 6), /claims to have another number/],
      [
        'another uuid',
        (bytes) => bytes.fill(1, bytes.readUInt32BE(56) + 8, bytes.readUInt32BE(56) + 24),
        /another archive/,
      ],
      ['left out', (bytes) => entry(bytes, 4, () => 0n), /1 of 3 clusters of device drive-efidisk0 are missing/],
    ]
    for (const [what, lie, says] of lies) {
      const archive = sample()
      const at = archive.readUInt32BE(56)
      lie(archive)
      sealed(archive.subarray(at), 512, 24)
      assert.match(await verdictOn(archive), says, what)
    }
  })

  test('leaves out saved memory, and what nobody wants', async () => {
    const [wanted, other] = [randomBytes(70 * KiB), randomBytes(70 * KiB)]
    const devices = { 'drive-scsi0': wanted, vmstate: other, 'drive-scsi1': other }
    await using reader = await VmaReader.open(inPieces(vmaArchive({ configs: {}, devices }), 4096))
    const target = inMemory(wanted.length - (wanted.length % 512) + 512)
    const written = await reader.restore(new Map([['drive-scsi0', target]]), { clock: systemClock })
    assert.ok(target.content.subarray(0, wanted.length).equals(wanted))
    assert.deepEqual([...written.keys()], ['drive-scsi0'])
  })

  test('of any random bytes is refused, and never a surprise', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 30_000 }), fc.boolean(), async (noise, isNamed) => {
        const bytes = Buffer.concat([isNamed ? Buffer.from('VMA\0\0\0\0\u0001') : Buffer.alloc(0), noise])
        assert.notEqual(await verdictOn(bytes), 'whole')
      }),
      { numRuns: 50 },
    )
  })
})

suite('a packed archive', () => {
  const lzop = async (bytes: Buffer): Promise<Buffer> => {
    await using place = await folder()
    await writeFile(join(place.path, 'a'), bytes)
    await machine().run(['lzop', '-o', join(place.path, 'a.lzo'), join(place.path, 'a')])
    await using file = await open(join(place.path, 'a.lzo'))
    return await file.readFile()
  }
  const packers: readonly [string, (bytes: Buffer) => Buffer | Promise<Buffer>][] = [
    ['vzdump-qemu-100-x.vma', (bytes) => bytes],
    ['x.vma.gz', (bytes) => gzipSync(bytes)],
    ['x.vma.lzo', lzop],
    ['x.vma.zst', (bytes) => zstdCompressSync(bytes, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })],
  ]

  for (const [name, pack] of packers) {
    test(`as ${name} is read, and damage to it is seen`, async () => {
      const content = Buffer.concat([Buffer.alloc(100 * KiB, 'text of a disk '), Buffer.alloc(300 * KiB)])
      const packed = await pack(vmaArchive({ configs: {}, devices: { 'drive-scsi0': content } }))
      const read = async (bytes: Buffer) => {
        await using place = await folder()
        await writeFile(join(place.path, 'archive'), bytes)
        await using file = await open(join(place.path, 'archive'))
        await using reader = await openVma(file, compressionOf(name))
        return await contentOf(reader)
      }
      assert.ok((await read(packed))['drive-scsi0']?.equals(content))
      const isDamage = (cause: Fault) => cause.kind === 'damaged' || cause.kind === 'invalid'
      await assert.rejects(read(packed.subarray(0, packed.length - 20)), isDamage)
      await assert.rejects(read(Buffer.alloc(0)), isDamage)
      await assert.rejects(read(Buffer.from('no archive at all, but text')), isDamage)
      if (name.endsWith('.vma')) return
      // The format itself has no checksum of disks' content; every compression has.
      const flipped = Buffer.from(packed)
      flipped[packed.length - 30] = (flipped[packed.length - 30] ?? 0) ^ 0x10
      await assert.rejects(read(flipped), isDamage)
    })
  }

  test('of a kind nobody can read is named', () => {
    assert.throws(
      () => compressionOf('vzdump-qemu-100-x.vma.bz2'),
      (fault: Fault) => /bz2/.test(fault.fields?.archive ?? ''),
    )
    assert.throws(
      () => compressionOf('vzdump-lxc-100-x.tar.zst'),
      (fault: Fault) => /must end in/.test(fault.fields?.archive ?? ''),
    )
  })
})

async function folder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'hako-vma-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}
