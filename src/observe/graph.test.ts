import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32, inflateSync } from 'node:zlib'
import { drawGraph } from './graph.ts'

/** Reads what was drawn: one colour number a pixel. */
function pixelsOf(png: Buffer): { width: number; height: number; at: (x: number, y: number) => number } {
  assert.equal(png.subarray(0, 8).toString('hex'), '89504e470d0a1a0a')
  const chunks = new Map<string, Buffer>()
  for (let at = 8; at < png.length;) {
    const length = png.readUInt32BE(at)
    const body = png.subarray(at + 4, at + 8 + length)
    assert.equal(png.readUInt32BE(at + 8 + length), crc32(body), 'sum of a part')
    chunks.set(body.subarray(0, 4).toString(), body.subarray(4))
    at += 12 + length
  }
  const [width, height] = [chunks.get('IHDR')?.readUInt32BE(0) ?? 0, chunks.get('IHDR')?.readUInt32BE(4) ?? 0]
  const lines = inflateSync(chunks.get('IDAT') ?? Buffer.alloc(0))
  assert.equal(lines.length, (width + 1) * height)
  return { width, height, at: (x, y) => lines[y * (width + 1) + 1 + x] ?? -1 }
}

test('a line rises with its values, and the largest is at the top', () => {
  const rows = Array.from({ length: 11 }, (_, time) => ({ time, a: time * 5, b: 0 }))
  const picture = pixelsOf(drawGraph(rows, ['a', 'b'], { width: 101, height: 51 }))
  assert.deepEqual([picture.width, picture.height], [101, 51])
  assert.equal(picture.at(100, 0), 2)
  assert.equal(picture.at(50, 25), 2)
  assert.equal(picture.at(100, 50), 3)
})

test('where nothing was measured there is no line', () => {
  const rows = Array.from({ length: 11 }, (_, time) => (time > 3 && time < 7 ? { time } : { time, a: 5 }))
  const picture = pixelsOf(drawGraph(rows, ['a'], { width: 101, height: 51 }))
  assert.deepEqual([picture.at(20, 0), picture.at(55, 0), picture.at(80, 0)], [2, 1, 2])
  assert.doesNotThrow(() => pixelsOf(drawGraph([], ['a'])))
})
