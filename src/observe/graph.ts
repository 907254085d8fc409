/**
 * Draws measurements as lines in a PNG, for clients that ask for a picture: no text, a grid of ten by four, the largest value
 * at the top. Written by hand, because it is a hundred lines and an image library is a hundred thousand.
 */
import { crc32, deflateSync } from 'node:zlib'
import type { Row } from './ring-file.ts'

export interface Size {
  readonly width: number
  readonly height: number
}

type Color = readonly [number, number, number]
const background: Color = [255, 255, 255]
const grid: Color = [224, 224, 224]
/** Of the lines, in their order; more lines than colours begin anew. */
const lineColors: readonly Color[] = [
  [31, 119, 180],
  [214, 39, 40],
  [44, 160, 44],
  [255, 127, 14],
  [148, 103, 189],
]

/** @param names of the columns to draw */
export function drawGraph(
  rows: readonly Row[],
  names: readonly string[],
  size: Size = { width: 800, height: 200 },
): Buffer {
  const pixels = new Uint8Array(size.width * size.height)
  drawGrid(pixels, size)
  const values = rows.flatMap((row) => names.map((name) => row[name] ?? 0))
  const top = Math.max(...values, 0) || 1
  for (const [index, name] of names.entries()) {
    drawLine(
      pixels,
      size,
      2 + (index % lineColors.length),
      rows.map((row) => row[name]).map((value) => value && value / top),
    )
  }
  return encode(pixels, size)
}

function drawGrid(pixels: Uint8Array, { width, height }: Size): void {
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (x % Math.ceil(width / 10) === 0 || y % Math.ceil(height / 4) === 0) pixels[y * width + x] = 1
    }
  }
}

/** Where nothing was measured the line is broken. */
function drawLine(pixels: Uint8Array, size: Size, color: number, shares: readonly (number | undefined)[]): void {
  const { width, height } = size
  const step = (width - 1) / Math.max(1, shares.length - 1)
  let before: { x: number; y: number } | undefined
  for (const [index, share] of shares.entries()) {
    if (share === undefined) {
      before = undefined
      continue
    }
    const here = { x: Math.round(index * step), y: Math.round((1 - Math.max(0, share)) * (height - 1)) }
    connect(pixels, width, color, before ?? here, here)
    before = here
  }
}

function connect(
  pixels: Uint8Array,
  width: number,
  color: number,
  from: { x: number; y: number },
  to: { x: number; y: number },
): void {
  const steps = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y), 1)
  for (let step = 0; step <= steps; step += 1) {
    const x = Math.round(from.x + ((to.x - from.x) * step) / steps)
    const y = Math.round(from.y + ((to.y - from.y) * step) / steps)
    pixels[y * width + x] = color
  }
}

/** One byte a pixel, with the palette above. */
function encode(pixels: Uint8Array, { width, height }: Size): Buffer {
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([8, 3, 0, 0, 0], 8)
  const palette = Buffer.from([background, grid, ...lineColors].flat())
  const lines = Buffer.alloc((width + 1) * height)
  for (let y = 0; y < height; y += 1) lines.set(pixels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1)
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk('IHDR', header),
    chunk('PLTE', palette),
    chunk('IDAT', deflateSync(lines)),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

function chunk(type: string, data: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(type, 'latin1'), data])
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)]
  length.writeUInt32BE(data.length)
  sum.writeUInt32BE(crc32(named))
  return Buffer.concat([length, named, sum])
}
