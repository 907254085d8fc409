/**
 * Reads a datastore by `docs/formats/backup-v1.md` alone: nothing below uses the engine, so what the page
 * says is what is written.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { crc32, zstdDecompressSync } from 'node:zlib'
import { backups, diskAt } from '../../../test/fixtures/first-format/content.ts'
import { unpackedDatastore } from '../../../test/fixtures/first-format/unpacked.ts'

const sha256 = (content: Uint8Array | string) => createHash('sha256').update(content).digest('hex')

async function sealed(path: string): Promise<Record<string, unknown>> {
  const text = await readFile(path, 'utf8')
  const { sha256: digest, value } = JSON.parse(text) as { sha256: string; value: Record<string, unknown> }
  assert.equal(digest, sha256(JSON.stringify(value)))
  assert.equal(text, `{"sha256":"${digest}","value":${JSON.stringify(value)}}\n`)
  return value
}

async function restoreByHand(root: string, backup: string, name: string): Promise<Buffer> {
  const index = await readFile(join(root, 'backups', backup, `${name}.index`))
  const end = index.length
  assert.equal(index.toString('latin1', 0, 8) + index.toString('latin1', end - 8), 'HAKOINDXHAKOIEND')
  const [version, chunkSize, perPiece] = [index.readUInt32LE(8), index.readUInt32LE(12), index.readUInt32LE(24)]
  assert.deepEqual([version, chunkSize, perPiece], [1, 131_072, 4_096])
  const content = Buffer.alloc(Number(index.readBigUInt64LE(16)))
  const tail = Number(index.readBigUInt64LE(end - 56))
  const [packs, pieces] = [index.readUInt32LE(end - 48), index.readUInt32LE(end - 44)]
  assert.equal(sha256(index.subarray(tail, end - 56)), index.toString('hex', end - 40, end - 8))
  const chunks = Math.ceil(content.length / chunkSize)
  assert.equal(pieces, Math.ceil(chunks / perPiece))
  for (let piece = 0; piece < pieces; piece += 1) {
    const entry = tail + 32 * packs + 16 * piece
    const [offset, length] = [Number(index.readBigUInt64LE(entry)), index.readUInt32LE(entry + 8)]
    if (length === 0) continue
    const packed = index.subarray(offset, offset + length)
    assert.equal(crc32(packed), index.readUInt32LE(entry + 12))
    const plain = zstdDecompressSync(packed)
    const n = Math.min(perPiece, chunks - piece * perPiece)
    for (let at_ = 0; at_ < n; at_ += 1) {
      const blobLength = plain.readUInt32LE(40 * n + 4 * at_)
      if (blobLength === 0) continue
      const number = plain.readUInt32LE(32 * n + 4 * at_)
      const pack = index.toString('hex', tail + 32 * number, tail + 32 * number + 32)
      const chunk = await chunkIn(root, pack, plain.readUInt32LE(36 * n + 4 * at_), blobLength)
      assert.equal(sha256(chunk), plain.toString('hex', 32 * at_, 32 * at_ + 32))
      content.set(chunk, (piece * perPiece + at_) * chunkSize)
    }
  }
  return content
}

async function chunkIn(root: string, pack: string, offset: number, length: number): Promise<Buffer> {
  const file = await readFile(join(root, 'packs', pack.slice(0, 2), pack))
  assert.equal(sha256(file), pack)
  assert.equal(file.toString('latin1', 0, 8), 'HAKOPACK')
  const blob = file.subarray(offset, offset + length)
  assert.equal(blob.toString('latin1', 0, 4), 'HKB1')
  const payload = blob.subarray(52)
  assert.equal(payload.length, blob.readUInt32LE(12))
  assert.equal(crc32(payload, crc32(blob.subarray(0, 48))), blob.readUInt32LE(48))
  const chunk = blob.readUInt32LE(4) === 1 ? zstdDecompressSync(payload) : payload
  assert.equal(chunk.length, blob.readUInt32LE(8))
  return chunk
}

test('a backup is restored by the page that describes the format', async () => {
  await using unpacked = await unpackedDatastore()
  const { path } = unpacked
  const { id: _, created: __, ...format } = await sealed(join(path, 'format'))
  assert.deepEqual(format, { format: 'hakobune-datastore', version: 1, chunkBytes: 131_072, digest: 'sha256' })
  const name = backups.second
  const notes = 'the second: Zweites, \u4e8c\u756a\u76ee'
  assert.deepEqual(await sealed(join(path, 'marks', `${name}.json`)), { notes, protected: true })
  const manifest = await sealed(join(path, 'backups', name, 'manifest.json'))
  assert.deepEqual([manifest.format, manifest.type, manifest.id, manifest.time], [1, 'vm', '100', 1_795_000_060])
  const disks = manifest.disks as { name: string; indexSha256: string; indexBytes: number; digest: string }[]
  assert.deepEqual(
    disks.map((one) => one.name),
    ['scsi0', 'efidisk0'],
  )
  for (const one of disks) {
    const index = await readFile(join(path, 'backups', name, `${one.name}.index`))
    assert.deepEqual([one.indexSha256, one.indexBytes], [sha256(index), index.length])
    const content = await restoreByHand(path, name, one.name)
    assert.ok(content.equals(one.name === 'scsi0' ? diskAt(60) : Buffer.alloc(4_096)))
    const tree = createHash('sha256')
    for (let offset = 0; offset < content.length; offset += 131_072) {
      tree.update(
        createHash('sha256')
          .update(content.subarray(offset, offset + 131_072))
          .digest(),
      )
    }
    assert.equal(tree.digest('hex'), one.digest)
  }
  const [file] = manifest.files as { name: string; sha256: string; sizeBytes: number }[]
  const stored = await readFile(join(path, 'backups', name, 'files', file?.name ?? ''))
  assert.deepEqual([file?.sha256, file?.sizeBytes], [sha256(stored), stored.length])
})
