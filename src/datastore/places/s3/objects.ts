/**
 * Objects of one bucket under one prefix, as a datastore needs them: whole or not at all, never replaced unless asked to.
 *
 * In a bucket with versions the oldest version of a name is the object, for all that is immutable: whoever may write there
 * can neither replace nor hide it, and a name two wrote at the same moment has one owner. Of what is meant to change the
 * newest version counts. To remove is to remove every version.
 */
import type { ListObjectVersionsCommandOutput, ObjectVersion, PutObjectCommandInput } from '@aws-sdk/client-s3'
import { createHash } from 'node:crypto'
import type { Readable } from 'node:stream'
import { Fault, isFault, missing } from '#base/fault.ts'
import { again, type Patience } from '../again.ts'
import { checkName, isName, isThere, type PlacedObject } from '../place.ts'
import type { S3Reach } from './client.ts'
import { type Content, gathered } from './content.ts'
import { asS3Fault } from './faults.ts'

const pageObjects = 1_000
const versionsKept = 16_384
/** What changes: of these the newest version counts. */
const changing = ['leases/', 'marks/', 'suspects/', 'condemned/', 'tmp/', 'extended', 'checked']

export interface S3Bucket extends S3Reach {
  readonly bucket: string
  readonly prefix: string
  readonly hasVersions: boolean
  readonly patience: Patience
  readonly pageObjects?: number | undefined
}

export interface PutOptions {
  readonly onlyNew: boolean
  /** Seconds since 1970: nobody can remove it before. */
  readonly until?: number | undefined
}

interface Version {
  readonly id: string
  readonly sizeBytes: number
}

export class S3Objects {
  readonly #in: S3Bucket
  /** Versions of what is immutable, by name. */
  readonly #versions = new Map<string, Version>()

  constructor(bucket: S3Bucket) {
    this.#in = bucket
  }

  get hasVersions(): boolean {
    return this.#in.hasVersions
  }

  keyOf(name: string): string {
    return this.#in.prefix === '' ? checkName(name) : `${this.#in.prefix}/${checkName(name)}`
  }

  /** Asks until somebody answers. */
  ask<T>(what: string, act: (attempt: number) => Promise<T>): Promise<T> {
    const { bucket, server, patience } = this.#in
    return again(patience, async (attempt) => {
      try {
        return await act(attempt)
      } catch (cause) {
        throw asS3Fault(cause, { bucket, server }, what)
      }
    })
  }

  /** @returns false when it was there already */
  async put(name: string, content: Content, options: PutOptions): Promise<boolean> {
    if (options.onlyNew && this.hasVersions && (await this.current(name))) return false
    return this.ask(name, async (attempt) => {
      const version = await this.#send(name, content, options)
      if (!options.onlyNew) return true
      // An attempt whose answer was lost may have come before us.
      if (version === 'taken') return attempt > 1 && (await this.#isThere(name, content))
      if (!this.hasVersions) return true
      const [first] = await this.#versionsOf(name)
      if (first === undefined || first.id === version) return true
      const isOurs = attempt > 1 && (await this.#isThere(name, content))
      await this.#removeVersion(name, version).catch(() => {})
      return isOurs
    })
  }

  /** @returns its version; `taken` */
  async #send(name: string, { body, sizeBytes, sha256 }: Content, { onlyNew, until }: PutOptions): Promise<string> {
    const { client, library, bucket } = this.#in
    const stream = typeof body === 'function' ? body() : body
    const input: PutObjectCommandInput = {
      Bucket: bucket,
      Key: this.keyOf(name),
      Body: stream,
      ContentLength: sizeBytes,
      ContentType: 'application/octet-stream',
      ...(onlyNew && { IfNoneMatch: '*' }),
      ...(until !== undefined && {
        ObjectLockMode: 'COMPLIANCE',
        ObjectLockRetainUntilDate: new Date(until * 1000),
        // Amazon's server wants one with every lock.
        ChecksumSHA256: sha256.toString('base64'),
      }),
    }
    const command = new library.PutObjectCommand(input)
    // What arrives is checked against it before it is taken in.
    command.middlewareStack.add(
      (next) => (args) => {
        const { headers } = args.request as { headers: Record<string, string> }
        headers['x-amz-content-sha256'] = sha256.toString('hex')
        return next(args)
      },
      { step: 'build', name: 'knownHash' },
    )
    try {
      return (await client.send(command)).VersionId ?? ''
    } catch (cause) {
      const { name: code } = Object(cause) as { name?: string }
      if (code === 'PreconditionFailed' || code === 'ConditionalRequestConflict') return 'taken'
      throw cause
    } finally {
      if ('destroy' in stream) stream.destroy()
    }
  }

  async #isThere(name: string, { sizeBytes, sha256 }: Content): Promise<boolean> {
    const found = await this.get(name, sizeBytes).catch((fault: unknown) => {
      if (isFault(fault, 'too-large')) return undefined
      throw fault
    })
    return found !== undefined && createHash('sha256').update(found).digest().equals(sha256)
  }

  async get(name: string, maximumBytes: number): Promise<Buffer | undefined> {
    try {
      return await this.ask(name, () => this.#fetch(name, undefined, maximumBytes))
    } catch (fault) {
      if (isFault(fault, 'missing') && !fault.message.startsWith('bucket')) return undefined
      throw fault
    }
  }

  /** @throws Fault `missing`, `damaged` when it ends before */
  async read(name: string, offset: number, length: number): Promise<Buffer> {
    if (length === 0) return Buffer.alloc(0)
    return this.ask(name, () => this.#fetch(name, { offset, length }, length))
  }

  /** The last bytes of it, all of what is shorter, and its size. @throws Fault `missing` */
  async readEnd(name: string, length: number): Promise<{ readonly sizeBytes: number; readonly end: Buffer }> {
    return this.ask(name, async () => {
      const { bytes, sizeBytes } = await this.#answer(name, `bytes=-${length}`, length)
      return { sizeBytes, end: bytes }
    })
  }

  async #fetch(
    name: string,
    range: { readonly offset: number; readonly length: number } | undefined,
    maximumBytes: number,
  ): Promise<Buffer> {
    const { offset, length } = range ?? { offset: 0, length: 0 }
    const wanted = range && `bytes=${offset}-${offset + length - 1}`
    const { bytes, sizeBytes } = await this.#answer(name, wanted, maximumBytes)
    if (bytes.length >= length) return bytes
    throw new Fault('damaged', `'${name}' ends ${offset + length - sizeBytes} bytes early`)
  }

  async #answer(
    name: string,
    range: string | undefined,
    maximumBytes: number,
  ): Promise<{ readonly bytes: Buffer; readonly sizeBytes: number }> {
    const { client, library, bucket, server } = this.#in
    const version = await this.#known(name)
    const reply = await client
      .send(
        new library.GetObjectCommand({
          Bucket: bucket,
          Key: this.keyOf(name),
          ...(range !== undefined && { Range: range }),
          ...(version && { VersionId: version.id }),
        }),
      )
      .catch((cause: unknown) => {
        this.#versions.delete(name)
        throw cause
      })
    const { Body: body, ContentLength: announced, ContentRange: of } = reply
    const stream = body as Readable
    const tooLarge = () => new Fault('too-large', `'${name}' has more than ${maximumBytes} bytes`)
    if (announced === undefined || announced > maximumBytes) {
      stream.destroy()
      throw tooLarge()
    }
    const bytes = await gathered(stream, announced)
    if (bytes.length !== announced) throw new Fault('unavailable', `'${server}' cut '${name}' off`)
    return { bytes, sizeBytes: Number(of?.split('/')[1]) || (range === undefined ? announced : 0) }
  }

  /** The version that counts, where there are versions. @throws Fault `missing` */
  async #known(name: string): Promise<Version | undefined> {
    if (!this.hasVersions) return undefined
    const known = this.#versions.get(name) ?? (await this.current(name))
    if (!known) throw missing('object', name)
    return known
  }

  /** In a bucket with versions: the one that counts. */
  async current(name: string): Promise<Version | undefined> {
    const versions = await this.ask(name, () => this.#versionsOf(name))
    if (isChanging(name)) return versions.at(-1)
    const [first] = versions
    if (first) this.#remember(name, first)
    return first
  }

  async sizeOf(name: string): Promise<number> {
    const known = await this.#known(name)
    if (known) return known.sizeBytes
    const { client, library, bucket } = this.#in
    return this.ask(name, async () => {
      const head = new library.HeadObjectCommand({ Bucket: bucket, Key: this.keyOf(name) })
      return (await client.send(head)).ContentLength ?? 0
    })
  }

  async *list(folder: string): AsyncGenerator<PlacedObject> {
    yield* this.hasVersions ? this.#listVersions(folder) : this.#listPlain(folder)
  }

  async *#listPlain(folder: string): AsyncGenerator<PlacedObject> {
    const { client, library, bucket } = this.#in
    let token: string | undefined
    do {
      const page = await this.ask(folder, () =>
        client.send(
          new library.ListObjectsV2Command({
            Bucket: bucket,
            Prefix: this.#folderKey(folder),
            MaxKeys: this.#in.pageObjects ?? pageObjects,
            ...(token !== undefined && { ContinuationToken: token }),
          }),
        ),
      )
      for (const { Key, Size = 0, ETag, LastModified } of page.Contents ?? []) {
        const name = this.#nameOf(Key)
        const version = `${ETag ?? ''} ${LastModified?.getTime() ?? ''}`
        if (name !== undefined) yield { name, sizeBytes: Size, version }
      }
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined
    } while (token !== undefined)
  }

  async *#listVersions(folder: string): AsyncGenerator<PlacedObject> {
    // Versions of a name stand one behind another, the newest first.
    let last: { readonly name: string; readonly version: Version } | undefined
    for await (const { Key, Size = 0, VersionId = '', IsLatest } of this.#versionsBelow(this.#folderKey(folder))) {
      const name = this.#nameOf(Key)
      if (name === undefined) continue
      if (isChanging(name)) {
        if (IsLatest === true) yield { name, sizeBytes: Size, version: VersionId }
        continue
      }
      if (last && last.name !== name) yield this.#listed(last)
      last = { name, version: { id: VersionId, sizeBytes: Size } }
    }
    if (last) yield this.#listed(last)
  }

  #listed({ name, version }: { readonly name: string; readonly version: Version }): PlacedObject {
    this.#remember(name, version)
    return { name, sizeBytes: version.sizeBytes, version: version.id }
  }

  /** Oldest first. */
  async #versionsOf(name: string): Promise<(Version & { readonly isLatest: boolean })[]> {
    const found = []
    const key = this.keyOf(name)
    for await (const page of this.#versionPages(key, 100)) {
      const ours = (page.Versions ?? []).filter(({ Key }) => Key === key)
      for (const { Size = 0, VersionId = '', IsLatest } of ours) {
        found.push({ id: VersionId, sizeBytes: Size, isLatest: IsLatest === true })
      }
      // Names that begin with this one come after it.
      if ([...(page.Versions ?? []), ...(page.DeleteMarkers ?? [])].some(({ Key }) => Key !== key)) break
    }
    return found.toReversed()
  }

  async *#versionsBelow(prefix: string): AsyncGenerator<ObjectVersion> {
    for await (const page of this.#versionPages(prefix)) yield* page.Versions ?? []
  }

  async *#versionPages(
    prefix: string,
    atOnce = this.#in.pageObjects ?? pageObjects,
  ): AsyncGenerator<ListObjectVersionsCommandOutput> {
    const { client, library, bucket } = this.#in
    let from: { readonly KeyMarker?: string; readonly VersionIdMarker?: string } | undefined = {}
    while (from) {
      const page: ListObjectVersionsCommandOutput = await this.ask(prefix, () =>
        client.send(
          new library.ListObjectVersionsCommand({ Bucket: bucket, Prefix: prefix, MaxKeys: atOnce, ...from }),
        ),
      )
      yield page
      const { IsTruncated, NextKeyMarker, NextVersionIdMarker } = page
      from =
        IsTruncated === true && NextKeyMarker !== undefined
          ? {
              KeyMarker: NextKeyMarker,
              ...(NextVersionIdMarker !== undefined && { VersionIdMarker: NextVersionIdMarker }),
            }
          : undefined
    }
  }

  /** False when it was not there. */
  async remove(name: string): Promise<boolean> {
    if (this.hasVersions) return this.removeVersions(name, () => true)
    const wasThere = await isThere(this, name)
    if (wasThere) await this.#removeVersion(name)
    return wasThere
  }

  /** The one that counts goes last. */
  async removeVersions(name: string, isDoomed: (version: { readonly isLatest: boolean }) => boolean): Promise<boolean> {
    this.#versions.delete(name)
    const versions = (await this.ask(name, () => this.#versionsOf(name))).filter(isDoomed)
    for (const { id } of isChanging(name) ? versions : versions.toReversed()) await this.#removeVersion(name, id)
    for (const id of await this.ask(name, () => this.#signsOfRemoval(name))) await this.#removeVersion(name, id)
    return versions.length > 0
  }

  /** What is left where somebody removed the name, and not a version of it. */
  async #signsOfRemoval(name: string): Promise<string[]> {
    const key = this.keyOf(name)
    const found: string[] = []
    for await (const { DeleteMarkers = [], Versions = [] } of this.#versionPages(key, 100)) {
      for (const { Key, VersionId = '' } of DeleteMarkers) if (Key === key) found.push(VersionId)
      if ([...DeleteMarkers, ...Versions].some(({ Key }) => Key !== key)) break
    }
    return found
  }

  #removeVersion(name: string, version?: string): Promise<unknown> {
    const { client, library, bucket } = this.#in
    const which = { Bucket: bucket, Key: this.keyOf(name), ...(version !== undefined && { VersionId: version }) }
    return this.ask(name, () => client.send(new library.DeleteObjectCommand(which)))
  }

  #remember(name: string, version: Version): void {
    this.#versions.delete(name)
    this.#versions.set(name, version)
    const [oldest] = this.#versions.keys()
    if (this.#versions.size > versionsKept && oldest !== undefined) this.#versions.delete(oldest)
  }

  #folderKey(folder: string): string {
    const path = folder.replace(/\/$/, '')
    return `${this.keyOf(path)}/`
  }

  /** Nothing for what is not ours. */
  #nameOf(key: string | undefined): string | undefined {
    const { prefix } = this.#in
    const name = prefix === '' ? key : key?.slice(prefix.length + 1)
    return name !== undefined && isName(name) ? name : undefined
  }
}

function isChanging(name: string): boolean {
  return changing.some((folder) => name.startsWith(folder))
}
