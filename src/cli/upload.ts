/**
 * Sends a file of this machine to the node, as the multipart form every client of this API sends.
 *
 * The node judges the caller's right before it takes in a byte, and writes the content once, to where it is
 * needed. Rejected: a copy into the node's spool, which only root may write to and which costs the whole file
 * before anybody has asked whether it is wanted.
 */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { Readable } from 'node:stream'
import { Fault, messageOf, missing } from '#base/fault.ts'
import { MiB } from '#base/bytes.ts'
import { systemRandom } from '#base/random.ts'
import { type ClientReply, readReply, type Transport } from '#rest/client.ts'
import type { Params } from './connection.ts'

export interface UploadFacts {
  readonly path: string
  /** Fields; `filename` is the file's path. */
  readonly params: Params
  readonly signal: AbortSignal | undefined
}

/** @throws Fault `missing` when there is no such file, and whatever the node answers */
export async function upload(send: Transport, { path, params, signal }: UploadFacts): Promise<ClientReply<unknown>> {
  const { filename = '', ...fields } = params
  const file = String(filename)
  const sizeBytes = await sizeOf(file)
  const boundary = `hakobune-${systemRandom.uuid()}`
  const [head, tail] = [Buffer.from(headOf(fields, basename(file), boundary)), Buffer.from(`\r\n--${boundary}--\r\n`)]
  const headers = {
    'Content-Type': `multipart/form-data; boundary=${boundary}`,
    'Content-Length': String(head.length + sizeBytes + tail.length),
  }
  const body = Readable.from(content(head, file, sizeBytes, tail), { objectMode: false })
  return readReply(await send({ method: 'POST', target: `/api2/json${path}`, headers, body, signal }))
}

async function sizeOf(file: string): Promise<number> {
  const facts = await stat(file).catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === 'ENOENT' ? missing('file', file) : new Fault('failed', messageOf(cause), { cause })
  })
  if (facts.isFile()) return facts.size
  throw new Fault('invalid', `'${file}' is not a file`)
}

/** Fields first, because the node decides by them while the file arrives. */
function headOf(fields: Params, name: string, boundary: string): string {
  const parts = Object.entries(fields).flatMap(([field, value]) =>
    [value].flat().map((one) => `name="${quoted(field)}"\r\n\r\n${one}\r\n`),
  )
  const file = `name="filename"; filename="${quoted(name)}"\r\nContent-Type: application/octet-stream\r\n\r\n`
  return [...parts, file].map((part) => `--${boundary}\r\nContent-Disposition: form-data; ${part}`).join('')
}

/** As browsers write it. */
function quoted(text: string): string {
  return text.replaceAll('"', '%22').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
}

async function* content(
  head: Uint8Array,
  file: string,
  sizeBytes: number,
  tail: Uint8Array,
): AsyncGenerator<Uint8Array> {
  yield head
  let leftBytes = sizeBytes
  // An `end` below `start` would be an error; a file of nothing has nothing to read.
  if (sizeBytes > 0) {
    for await (const part of createReadStream(file, {
      end: sizeBytes - 1,
      highWaterMark: MiB,
    }) as AsyncIterable<Buffer>) {
      leftBytes -= part.length
      yield part
    }
  }
  if (leftBytes > 0) throw new Fault('conflict', `file '${file}' became shorter while it was sent`)
  yield tail
}
