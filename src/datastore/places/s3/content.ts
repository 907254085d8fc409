/** What is in an object, on its way there and back. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { MiB } from '#base/bytes.ts'

export interface Content {
  readonly body: Uint8Array | (() => Readable)
  readonly sizeBytes: number
  readonly sha256: Buffer
}

export function contentOf(bytes: Uint8Array): Content {
  return { body: bytes, sizeBytes: bytes.length, sha256: createHash('sha256').update(bytes).digest() }
}

/** Servers know SHA-256, whatever the file is called by. */
export async function fileContent(path: string, sizeBytes: number): Promise<Content> {
  const hash = createHash('sha256')
  for await (const part of createReadStream(path, { highWaterMark: MiB })) hash.update(part as Buffer)
  return { body: () => createReadStream(path), sizeBytes, sha256: hash.digest() }
}

/** As many bytes as were announced, or fewer where it was cut off. */
export async function gathered(stream: Readable, sizeBytes: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(sizeBytes)
  let done = 0
  await pipeline(stream, async (parts: AsyncIterable<Buffer>) => {
    for await (const part of parts) {
      // More than was announced is left out, and noticed.
      part.copy(bytes, done)
      done += part.length
    }
  })
  return done === sizeBytes ? bytes : bytes.subarray(0, Math.min(done, sizeBytes))
}
