/**
 * Takes a file from a web server into a storage, out of sight; `publishFile` shows it.
 *
 * The bytes go from the connection to the file, through the checksum and where asked for through a decompressor, and
 * memory stays small. The server is not trusted: time, size and silence have limits, and so has what comes out of the
 * decompressor. What is not announced is not known, so room is looked at again and again while bytes come; some is
 * always left, because a full file system stops every guest on it.
 */
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import type { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { humanSize, MiB } from '#base/bytes.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import type { Host } from '#host/host.ts'
import type { Reach } from '#host/web/reach.ts'
import { askWeb, type WebAnswer } from '#host/web/web.ts'
import { namingFullStorage } from './full.ts'
import type { OpenStorage } from './opened.ts'
import { placedName, requireHarmless } from './placing.ts'
import { type Checksum, requireChecksumShape, requireSame } from './transfer.ts'
import type { FileContent } from './volume.ts'

export const compressions = ['gz', 'zst'] as const
export type Compression = (typeof compressions)[number]

export interface Download {
  readonly storage: string
  readonly content: FileContent
  readonly fileName: string
  readonly url: string
  /** Lower-case letters and digits; stands for whoever places the file. */
  readonly mark: string
  /** Of what the server sends, not of what is made of it. */
  readonly checksum?: Checksum | undefined
  /** Take it apart on the way. */
  readonly compression?: Compression | undefined
  readonly reach: Reach
  readonly verifyCertificates?: boolean | undefined
  readonly bounds?: Partial<DownloadBounds>
  /** Where it comes from in the end, and how much there is, where the server says so. */
  readonly onAnswer?: ((from: URL, sizeBytes: number | undefined) => void) | undefined
  readonly onProgress?: ((doneBytes: number, sizeBytes: number | undefined) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

export interface DownloadBounds {
  readonly sizeBytes: number
  readonly idleMs: number
  readonly wholeMs: number
  /** Left free on the storage, but never more than a twentieth of it. */
  readonly reserveBytes: number
  /** How often room is looked at. */
  readonly everyBytes: number
}

const usual: DownloadBounds = {
  sizeBytes: limits.http.uploadBytes,
  idleMs: 60_000,
  wholeMs: 24 * 60 * 60_000,
  reserveBytes: 256 * MiB,
  everyBytes: 32 * MiB,
}

/** @returns what `withdrawFile` knows it by @throws Fault `damaged`, `exhausted`, `too-large`, `timeout`, `aborted`, … */
export async function stageDownload(host: Host, open: OpenStorage, download: Download): Promise<string> {
  const { content, checksum, mark, signal } = download
  const bounds = { ...usual, ...download.bounds }
  open.requireContent(content)
  const name = placedName(content, download.fileName)
  if (checksum) requireChecksumShape(checksum)
  const limit = AbortSignal.timeout(bounds.wholeMs)
  const ended = AbortSignal.any([limit, ...(signal ? [signal] : [])])
  try {
    const { reach, verifyCertificates, url } = download
    const mayLoseTls = checksum !== undefined
    const answer = await askWeb(url, { method: 'GET', reach, verifyCertificates, mayLoseTls, signal: ended })
    using body = { answer, [Symbol.dispose]: () => void answer.body.destroy() }
    const sizeBytes = announcedSize(answer, bounds)
    download.onAnswer?.(answer.url, sizeBytes)
    const room = await roomIn(open, bounds)
    await room.require(sizeBytes ?? 0, `file '${name.file}'`)
    const writing = { storage: open.config.name, what: `file '${name.file}'`, availableBytes: open.availableBytes }
    return await namingFullStorage({ ...writing, neededBytes: sizeBytes }, () =>
      open.files.stage(name, mark, async (path) => {
        await receive(body.answer, path, { download, sizeBytes, room, bounds, signal: ended })
        if (content === 'import') await requireHarmless(host, path, name.file)
      }),
    )
  } catch (cause) {
    if (limit.aborted) throw new Fault('timeout', `the download took longer than ${bounds.wholeMs / 1000} s`, { cause })
    if (signal?.aborted) throw new Fault('aborted', 'the download was interrupted', { cause })
    throw cause
  }
}

function announcedSize({ headers }: WebAnswer, { sizeBytes: most }: DownloadBounds): number | undefined {
  const text = headers['content-length']
  if (text === undefined) return undefined
  const size = Number(text)
  if (!Number.isSafeInteger(size)) throw new Fault('failed', 'the server announces no size a file can have')
  if (size > most) throw tooLarge(most)
  return size
}

interface Room {
  readonly require: (bytes: number, what: string) => Promise<void>
}

/** What may be written, and still leave the reserve. */
async function roomIn(open: OpenStorage, { reserveBytes }: DownloadBounds): Promise<Room> {
  const { totalBytes } = await open.driver.space()
  const reserve = Math.min(reserveBytes, Math.floor(totalBytes / 20))
  return { require: (bytes, what) => open.requireRoom(bytes + reserve, what) }
}

interface Receiving {
  readonly download: Download
  readonly sizeBytes: number | undefined
  readonly room: Room
  readonly bounds: DownloadBounds
  readonly signal: AbortSignal
}

async function receive({ body }: WebAnswer, path: string, receiving: Receiving): Promise<void> {
  const { download, sizeBytes, room, bounds, signal } = receiving
  const { checksum, compression, onProgress } = download
  const hash = checksum && createHash(checksum.algorithm)
  let received = 0
  async function* measured(source: AsyncIterable<Buffer>) {
    for await (const bytes of source) {
      received += bytes.length
      if (received > bounds.sizeBytes) throw tooLarge(bounds.sizeBytes)
      hash?.update(bytes)
      onProgress?.(received, sizeBytes)
      yield bytes
    }
  }
  let [written, lookedAt] = [0, 0]
  async function* bounded(source: AsyncIterable<Buffer>) {
    for await (const bytes of source) {
      written += bytes.length
      if (written > bounds.sizeBytes) throw tooLarge(bounds.sizeBytes)
      if (written - lookedAt >= bounds.everyBytes) {
        lookedAt = written
        await room.require(0, `the rest of file '${download.fileName}'`)
      }
      yield bytes
    }
  }
  body.setTimeout(bounds.idleMs, () =>
    body.destroy(new Fault('timeout', `the server was silent for ${bounds.idleMs / 1000} s`)),
  )
  const target = createWriteStream(path, { flags: 'r+' })
  try {
    if (compression === undefined) await pipeline(body, measured, bounded, target, { signal })
    else await pipeline(body, measured, decompressor(compression), bounded, target, { signal })
  } catch (cause) {
    throw asDownloadFault(cause, received, sizeBytes)
  }
  if (sizeBytes !== undefined && received !== sizeBytes) throw cutOff(received, sizeBytes)
  if (hash && checksum) requireSame(hash.digest(), checksum)
}

function decompressor(compression: Compression): Transform {
  switch (compression) {
    case 'gz':
      return createGunzip()
    case 'zst':
      return createZstdDecompress()
    default:
      return compression satisfies never
  }
}

function asDownloadFault(cause: unknown, received: number, sizeBytes: number | undefined): unknown {
  if (isFault(cause)) return cause
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
  if (/^(ECONN|EPIPE|ERR_STREAM_PREMATURE|HPE_|ETIMEDOUT)/.test(code)) return cutOff(received, sizeBytes, cause)
  if (/^(Z_|ZSTD_)/.test(code)) {
    return new Fault('damaged', `what the server sent cannot be decompressed: ${messageOf(cause)}`, { cause })
  }
  return cause
}

function cutOff(received: number, sizeBytes: number | undefined, cause?: unknown): Fault {
  const of = sizeBytes === undefined ? '' : ` of ${sizeBytes}`
  return new Fault('unavailable', `the download was cut off after ${received}${of} bytes`, { cause })
}

function tooLarge(mostBytes: number): Fault {
  return new Fault('too-large', `the file is larger than ${humanSize(mostBytes)}`)
}
