/**
 * A blob is the stored form of a chunk: a header that says what it is, and the chunk's bytes, compressed
 * when that saves at least 3 %.
 *
 * The header repeats the chunk's digest, so a pack can be read without any index, and a CRC over header
 * and payload tells a damaged disk from a wrong index. Rejected: one file per chunk, whose syncs take
 * longer than everything else together.
 */
import { crc32, zstdDecompressSync } from 'node:zlib'
import { Fault } from '#base/fault.ts'
import { chunkBytes } from './format.ts'
import { digestBytes, digestOf, textOf } from './digest.ts'

export const blobHeaderBytes = 52
export const blobMaximumBytes = blobHeaderBytes + chunkBytes

const magic = 0x31_42_4b_48 // "HKB1"
const raw = 0
const zstd = 1
/**
 * The chunk inside, proven to have the digest it is asked for by.
 * @param where in words, for the fault: `pack 3f… at 4096`
 * @throws Fault `damaged`: `chunk <digest> in <where> is damaged: …`
 */
export function decodeBlob(blob: Buffer, digest: Uint8Array, where: string): Buffer {
  const damaged = (how: string, cause?: unknown) =>
    new Fault('damaged', `chunk ${textOf(digest)} in ${where} is damaged: ${how}`, {
      cause,
      remedy: 'Restore from another backup or another copy of this datastore.',
    })
  if (blob.length < blobHeaderBytes || blob.readUInt32LE(0) !== magic) throw damaged('no chunk begins there')
  const [encoding, plainLength, length] = [blob.readUInt32LE(4), blob.readUInt32LE(8), blob.readUInt32LE(12)]
  if (blob.length !== blobHeaderBytes + length || plainLength > chunkBytes) throw damaged('its lengths are wrong')
  if (checkOf(blob) !== blob.readUInt32LE(48)) throw damaged('its checksum does not match')
  if (!blob.subarray(16, 16 + digestBytes).equals(digest)) throw damaged('another chunk lies in its place')
  let plain: Buffer
  try {
    plain = payloadOf(blob, encoding, plainLength)
  } catch (cause) {
    throw damaged('it cannot be decompressed', cause)
  }
  if (plain.length !== plainLength || !digestOf(plain).equals(digest)) throw damaged('its content has another digest')
  return plain
}

function payloadOf(blob: Buffer, encoding: number, plainLength: number): Buffer {
  const payload = blob.subarray(blobHeaderBytes)
  if (encoding === raw) return payload
  if (encoding !== zstd) throw new Error(`encoding ${encoding} is unknown`)
  // The bound keeps a few hostile bytes from growing into gigabytes.
  return zstdDecompressSync(payload, {
    chunkSize: Math.max(64, plainLength),
    maxOutputLength: Math.max(1, plainLength),
  })
}

/** CRC-32 over everything but the field that holds it. */
function checkOf(blob: Buffer): number {
  return crc32(blob.subarray(blobHeaderBytes), crc32(blob.subarray(0, 48)))
}
