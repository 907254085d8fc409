/**
 * Reads a tree by `docs/formats/backup-tree-v1.md` (and `backup-v1.md`) alone: nothing that reads uses the engine, so
 * what the pages say is what is written.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { crc32, zstdDecompressSync } from 'node:zlib'
import { temporaryDatastore } from '../../../test/fixtures/datastore.ts'
import { makeEveryEntry, makeManyFiles, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { treeManifest } from '../../../test/fixtures/tree-manifest.ts'

const sha256 = (content: Uint8Array) => createHash('sha256').update(content).digest('hex')

interface ByHand {
  readonly letter: string
  readonly mode: number
  readonly uid: number
  readonly size: number
  readonly mtime: bigint
  readonly target: Buffer
  content: Buffer
}

const packs = new Map<string, Buffer>()

function chunkAt(root: string, pack: string, offset: number, length: number, digest: string): Buffer {
  const file = packs.get(pack) ?? readFileSync(join(root, 'packs', pack.slice(0, 2), pack))
  packs.set(pack, file)
  const blob = file.subarray(offset, offset + length)
  const chunk = blob.readUInt32LE(4) === 1 ? zstdDecompressSync(blob.subarray(52)) : blob.subarray(52)
  assert.equal(sha256(chunk), digest)
  return chunk
}

/** Entries by path, with content up to a bound. */
function readByHand(root: string, backup: string, name: string): Map<string, ByHand> {
  const file = readFileSync(join(root, 'backups', backup, `${name}.tree`))
  const end = file.length
  assert.equal(file.toString('latin1', 0, 8) + file.toString('latin1', end - 8), 'HAKOTREEHAKOTEND')
  const tail = Number(file.readBigUInt64LE(end - 56))
  const [packCount, segments] = [file.readUInt32LE(end - 48), file.readUInt32LE(end - 44)]
  assert.equal(sha256(file.subarray(tail, end - 56)), file.toString('hex', end - 40, end - 8))
  const packName = (number: number) => file.toString('hex', tail + 32 * number, tail + 32 * number + 32)
  const entries = new Map<string, ByHand>()
  const all = createHash('sha256')
  let at = tail + 32 * packCount
  for (let segment = 0; segment < segments; segment += 1) {
    const [offset, length] = [Number(file.readBigUInt64LE(at)), file.readUInt32LE(at + 8)]
    const packed = file.subarray(offset, offset + length)
    assert.equal(crc32(packed), file.readUInt32LE(at + 12))
    const plain = zstdDecompressSync(packed)
    assert.equal(plain.length, file.readUInt32LE(at + 16))
    let place = 0
    for (let piece = 0; piece < file.readUInt32LE(at + 20); piece += 1) {
      const digest = plain.toString('hex', place, place + 32)
      all.update(plain.subarray(place, place + 32))
      const blobAt = (where: number, of: string) =>
        chunkAt(
          root,
          packName(plain.readUInt32LE(where)),
          plain.readUInt32LE(where + 4),
          plain.readUInt32LE(where + 8),
          of,
        )
      const chunks = plain.readUInt32LE(place + 44)
      const placesAt = place + 60 + plain.readUInt16LE(place + 48) + plain.readUInt16LE(place + 50)
      readPiece(blobAt(place + 32, digest), entries, (number, of) => blobAt(placesAt + 12 * number, of))
      place = placesAt + 12 * chunks
    }
    assert.equal(place, plain.length)
    at += 36 + file.readUInt16LE(at + 32) + file.readUInt16LE(at + 34)
  }
  const manifest = JSON.parse(readFileSync(join(root, 'backups', backup, 'manifest.json'), 'utf8')) as {
    value: { format: number; trees: { name: string; digest: string; treeSha256: string; entries: number }[] }
  }
  const [tree] = manifest.value.trees
  assert.deepEqual([manifest.value.format, tree?.name, tree?.treeSha256], [2, name, sha256(file)])
  assert.deepEqual([tree?.digest, tree?.entries], [all.digest('hex'), entries.size])
  return entries
}

function readPiece(
  piece: Buffer,
  entries: Map<string, ByHand>,
  chunk: (number: number, digest: string) => Buffer,
): void {
  assert.equal(piece.toString('latin1', 0, 4), 'HKT1')
  const chunks = piece.readUInt32LE(4)
  const records = piece.subarray(16 + 32 * chunks)
  assert.equal(records.length, piece.readUInt32LE(8))
  let folder = ''
  for (let at = 0; at < records.length; at += records.readUInt32LE(at)) {
    const length = records.readUInt32LE(at)
    const letter = records.toString('latin1', at + 4, at + 5)
    if (letter === 'D') {
      folder = records.toString('latin1', at + 8, at + length)
      continue
    }
    const nameEnd = at + 64 + records.readUInt8(at + 5)
    const name = records.toString('latin1', at + 64, nameEnd)
    const path = folder === '' ? name : `${folder}/${name}`
    if (letter === '@') continue
    const size = Number(records.readBigUInt64LE(at + 16))
    const entry = entries.get(path) ?? {
      letter,
      mode: records.readUInt16LE(at + 6),
      uid: records.readUInt32LE(at + 8),
      size,
      mtime: records.readBigInt64LE(at + 24) * 1_000_000_000n + BigInt(records.readUInt32LE(at + 32)),
      target: records.subarray(nameEnd, nameEnd + records.readUInt16LE(at + 56)),
      content: Buffer.alloc(size),
    }
    assert.equal(entries.has(path), letter === '+')
    entries.set(path, entry)
    for (let extent = at + length - 20 * records.readUInt16LE(at + 58); extent < at + length; extent += 20) {
      const number = records.readUInt32LE(extent + 8)
      const bytes = chunk(number, piece.toString('hex', 16 + 32 * number, 48 + 32 * number))
      const [skip, count] = [records.readUInt32LE(extent + 12), records.readUInt32LE(extent + 16)]
      entry.content.set(bytes.subarray(skip, skip + count), Number(records.readBigUInt64LE(extent)))
    }
  }
}

const letters: Readonly<Record<string, string>> = { file: 'f', directory: 'd', link: 'l', pipe: 'p', socket: 's' }

test('a tree is read by the pages that describe the format', async () => {
  await using temporary = await temporaryDatastore()
  const { path, datastore } = temporary
  const tree = mkdtempSync(join(tmpdir(), 'hako-format-'))
  try {
    await makeEveryEntry(tree)
    rmSync(join(tree, 'holes'))
    mkdirSync(join(tree, 'many'))
    makeManyFiles(join(tree, 'many'), 1_000)
    await using writer = await datastore.begin({ type: 'ct', id: '100', time: 1_795_000_000 })
    await writer.addTree('rootfs', unsettledSource({ root: tree }))
    await writer.commit()
    const entries = readByHand(path, `ct/100/${new Date(1_795_000_000_000).toISOString().slice(0, 19)}Z`, 'rootfs')
    const lines = treeManifest(tree).map((line) => JSON.parse(line) as Record<string, string>)
    assert.equal(entries.size, lines.length)
    for (const { path: name = '', kind = '', mode, uid, mtime, target, device, same } of lines) {
      const entry = entries.get(name === '.' ? '' : name)
      assert.ok(entry, name)
      if (entry.letter === 'h') {
        assert.ok(same !== undefined && entries.get(entry.target.toString('latin1'))?.letter !== 'h', name)
        continue
      }
      assert.equal(entry.letter, kind.endsWith('device') ? kind[0] : letters[kind], name)
      assert.deepEqual(
        [entry.mode, entry.uid, entry.mtime],
        [Number.parseInt(mode ?? '', 8), Number(uid), BigInt(mtime ?? 0)],
      )
      if (target !== undefined) assert.equal(entry.target.toString('latin1'), target)
      if (device) assert.equal(`${entry.target.readUInt32LE(0)}:${entry.target.readUInt32LE(4)}`, device)
      const there = Buffer.concat([Buffer.from(`${tree}/`), Buffer.from(name, 'latin1')])
      if (entry.letter === 'f') assert.ok(entry.content.equals(readFileSync(there)), name)
    }
  } finally {
    rmSync(tree, { recursive: true })
  }
})
