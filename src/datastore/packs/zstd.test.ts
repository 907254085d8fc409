import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import test from 'node:test'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { KiB, MiB } from '#base/bytes.ts'
import { compressed, decompressInto } from './zstd.ts'

const contents = [0, 1, 700, 128 * KiB - 1, 128 * KiB, 256 * KiB, MiB].flatMap((bytes) => [
  randomBytes(bytes),
  Buffer.alloc(bytes, 'a line of a log, again and again\n'),
])

test('what is packed by one chunk after another is read by any reader, and the other way round', () => {
  for (const level of [1, 3, 19]) {
    for (const content of contents) {
      const packed = Buffer.from(compressed(content, level))
      assert.deepEqual(zstdDecompressSync(packed), content)
      const output = Buffer.alloc(content.length)
      decompressInto(packed, output)
      assert.deepEqual(output, content)
      decompressInto(zstdCompressSync(content), output.fill(0))
      assert.deepEqual(output, content)
    }
  }
})

test('what is no frame of just that content is refused, and what comes after it is read', () => {
  const content = Buffer.alloc(10_000, 'some content')
  const packed = zstdCompressSync(content)
  for (let round = 0; round < 200; round += 1) {
    const turned = Buffer.from(packed)
    const at = round % turned.length
    turned[at] = (turned[at] ?? 0) ^ (1 << (round & 7))
    const output = Buffer.alloc(content.length)
    try {
      decompressInto(turned, output)
    } catch (error) {
      assert.ok(error instanceof Error)
    }
  }
  const cases = { 'too little': packed.subarray(0, -3), nothing: Buffer.alloc(0), noise: randomBytes(300) }
  for (const [what, input] of Object.entries(cases)) {
    assert.throws(() => decompressInto(input, Buffer.alloc(content.length)), Error, what)
  }
  for (const bytes of [0, 1, 9_999, 10_001]) {
    assert.throws(() => decompressInto(packed, Buffer.alloc(bytes)), Error, `${bytes} bytes of room`)
  }
  const output = Buffer.alloc(content.length)
  decompressInto(packed, output)
  assert.deepEqual(output, content)
})
