/** Pictures of a screen, as a browser shows them and as QEMU draws them, and how they compare. */
import assert from 'node:assert/strict'

export interface Canvas {
  readonly width: number
  readonly height: number
  /** Four bytes each. */
  readonly pixels: Buffer
}

/** QEMU's own picture: PPM, three bytes a pixel. */
export function readPpm(bytes: Buffer): Canvas {
  const [head, width, height] = /^P6\n(\d+) (\d+)\n255\n/.exec(bytes.toString('latin1', 0, 64)) ?? []
  assert.ok(head !== undefined, 'QEMU drew no PPM')
  const [rgb, count] = [bytes.subarray(head.length), Number(width) * Number(height)]
  const pixels = Buffer.alloc(count * 4, 255)
  for (let at = 0; at < count; at += 1) rgb.copy(pixels, at * 4, at * 3, at * 3 + 3)
  return { width: Number(width), height: Number(height), pixels }
}

export function litIn({ pixels }: Canvas): number {
  let lit = 0
  for (let at = 0; at < pixels.length; at += 4) if ((pixels[at] ?? 0) > 64) lit += 1
  return lit
}

export function differing(a: Canvas, b: Canvas): number {
  let count = Math.abs(a.pixels.length - b.pixels.length)
  for (let at = 0; at < a.pixels.length; at += 4) {
    if (!a.pixels.subarray(at, at + 3).equals(b.pixels.subarray(at, at + 3))) count += 1
  }
  return count
}
