/**
 * Takes a multipart upload and streams its one file to disk; memory stays small however large it is.
 *
 * Plain fields come first, then the part `filename`. Whatever ends the upload early (client gone, disk full,
 * too large, wrong checksum), no file stays. The checksum is computed while the bytes pass; reading the file
 * again afterwards was rejected, because it doubles the time of the largest request there is.
 */
import { createHash, type Hash } from 'node:crypto'
import { rm } from 'node:fs/promises'
import type { IncomingHttpHeaders } from 'node:http'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { Busboy, type BusboyFileStream, type BusboyInstance } from '@fastify/busboy'
import { humanSize } from '#base/bytes.ts'
import { Fault, invalid, messageOf } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import type { RawParams } from '#rest/router.ts'
import { tooLarge } from '#rest/body.ts'
import { asFileFault, freeBytes } from '#host/files.ts'
import { bounds } from './bounds.ts'
import { openGathered } from '#host/files/gathered-file.ts'

export interface UploadOptions {
  /** Directory that receives the file. */
  readonly directory: string
  /** Name it gets there; chosen by us, never by the client. */
  readonly name: string
  /** Parameters of the query, which count like fields. */
  readonly query: RawParams
  readonly maximumBytes?: number
}

export interface Upload {
  /** Plain fields, and `filename` as the client calls the file. */
  readonly fields: Readonly<Record<string, string>>
  readonly path: string
  readonly sizeBytes: number
}

/**
 * Reads the whole body.
 * @throws Fault `invalid` (naming the part), `too-large`, `exhausted` (disk full), `aborted` (cut off). The file
 *   is gone by then; the stream is left as it is, so that the reply can still be sent.
 */
export async function receiveUpload(
  body: Readable,
  headers: IncomingHttpHeaders,
  options: UploadOptions,
): Promise<Upload> {
  const { directory, name, maximumBytes = limits.http.uploadBytes } = options
  await requireRoom(headers, directory, maximumBytes)
  const path = join(directory, name)
  const form = openForm(headers, maximumBytes)
  try {
    const upload = await readForm(body, form, path, options)
    requireChecksum(upload, options.query)
    return upload.upload
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
}

/** Says at once what would otherwise fail after an hour. */
async function requireRoom(headers: IncomingHttpHeaders, directory: string, maximumBytes: number): Promise<void> {
  const declared = Number(headers['content-length'] ?? 0)
  if (declared > maximumBytes) throw tooLarge(maximumBytes)
  const free = await freeBytes(directory)
  if (declared + bounds.spoolReserveBytes <= free || declared === 0) return
  throw new Fault(
    'exhausted',
    `no space for the upload: it needs ${humanSize(declared)}, and ${humanSize(bounds.spoolReserveBytes)} must stay free; '${directory}' has ${humanSize(free)} free`,
    {
      remedy: `Free space on the file system of '${directory}': ${humanSize(declared + bounds.spoolReserveBytes - free)} are missing.`,
    },
  )
}

function openForm(headers: IncomingHttpHeaders, maximumBytes: number): BusboyInstance {
  const type = headers['content-type'] ?? ''
  try {
    return new Busboy({
      headers: { ...headers, 'content-type': type },
      // The part's name decides, so that a file without a name is not taken for a field.
      isPartAFile: (part, _type, fileName) => part === 'filename' || fileName !== undefined,
      limits: {
        fields: bounds.uploadFields,
        fieldSize: bounds.uploadFieldBytes,
        fileSize: maximumBytes,
        headerSize: 16_384,
      },
    })
  } catch (cause) {
    throw new Fault('invalid', `the upload cannot be read: ${messageOf(cause)}`, { cause })
  }
}

interface Stored {
  readonly upload: Upload
  readonly digest: string | undefined
}

async function readForm(body: Readable, form: BusboyInstance, path: string, options: UploadOptions): Promise<Stored> {
  const { promise: failed, reject: fail } = Promise.withResolvers<never>()
  failed.catch(() => {}) // It is raced below; this only keeps a second failure from being "unhandled".
  const fields: Record<string, string> = {}
  let file: Promise<Omit<Stored, 'upload'> & { sizeBytes: number }> | undefined
  let open: BusboyFileStream | undefined
  form.on('field', (name, value, isNameCut, isValueCut) => {
    if (file) fail(invalid({ [name]: 'fields must come before the file' }))
    else if (isNameCut || isValueCut)
      fail(invalid({ [name]: `value may only be ${bounds.uploadFieldBytes} bytes long` }))
    else if (Object.hasOwn(fields, name) || name === 'tmpfilename')
      fail(invalid({ [name]: 'duplicate or reserved field' }))
    else Object.defineProperty(fields, name, { value, enumerable: true })
  })
  form.on('fieldsLimit', () => fail(new Fault('invalid', `an upload has at most ${bounds.uploadFields} fields`)))
  form.on('file', (name, part, fileName) => {
    part.on('error', () => {}) // The form reports the same mistake.
    if (file || name !== 'filename' || !fileName) {
      part.resume()
      fail(invalid({ [name]: "one file is taken, in the part 'filename', with its file name" }))
      return
    }
    Object.defineProperty(fields, 'filename', { value: fileName, enumerable: true })
    open = part
    file = store(part, path, { ...fields, ...options.query })
    file.catch(fail)
  })
  try {
    await Promise.race([flow(body, form), failed])
  } catch (error) {
    body.unpipe(form)
    // A part that never ends would keep its file open, and could create it after it was removed.
    open?.destroy()
    await file?.catch(() => {})
    throw error
  }
  if (!file) throw invalid({ filename: 'property is missing and it is not optional' })
  const { digest, sizeBytes } = await file
  return { upload: { fields, path, sizeBytes }, digest }
}

/** Moves the body into the parser; settles when the parser has all of it or the client is gone. */
function flow(body: Readable, form: BusboyInstance): Promise<void> {
  return new Promise((resolve, reject) => {
    const cutOff = (cause?: unknown) => reject(new Fault('aborted', 'the upload was cut off', { cause }))
    form.once('finish', () => resolve())
    form.on('error', (cause) =>
      reject(new Fault('invalid', `the upload cannot be read: ${messageOf(cause)}`, { cause })),
    )
    body.once('error', cutOff)
    body.once('close', () => {
      if (!body.readableEnded) cutOff()
    })
    if (body.destroyed) cutOff()
    body.pipe(form)
  })
}

async function store(part: BusboyFileStream, path: string, fields: RawParams) {
  const hash = hashFor(fields)
  let sizeBytes = 0
  try {
    await using file = await openGathered(path)
    for await (const bytes of part as AsyncIterable<Buffer>) {
      sizeBytes += bytes.length
      hash?.update(bytes)
      await file.write(bytes)
    }
    await file.flush()
  } catch (cause) {
    throw asFileFault(cause, path)
  }
  if (part.truncated) throw tooLarge(sizeBytes)
  return { sizeBytes, digest: hash?.digest('hex') }
}

const algorithms: readonly string[] = ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512']

function hashFor(fields: RawParams): Hash | undefined {
  const algorithm = fields['checksum-algorithm']
  if (algorithm === undefined || fields.checksum === undefined) return undefined
  if (typeof algorithm === 'string' && algorithms.includes(algorithm)) return createHash(algorithm)
  throw invalid({
    'checksum-algorithm': `value '${String(algorithm as string)}' does not have a value in the enumeration '${algorithms.join(', ')}'`,
  })
}

function requireChecksum({ upload, digest }: Stored, query: RawParams): void {
  const expected = query.checksum ?? upload.fields.checksum
  if (digest === undefined || typeof expected !== 'string' || expected.toLowerCase() === digest) return
  throw invalid({ checksum: `checksum mismatch: got '${digest}' != expect '${expected.slice(0, 128)}'` })
}
