/**
 * A datastore in a bucket of an S3 server, under the names it has in a folder.
 *
 * Where the bucket has Object Lock and the datastore was made to retain, what a backup needs (packs, manifests, keys, the
 * description itself) is put with a lock, so that not even its own credentials can remove it before the date. The index
 * has none: it can be made anew from the packs, and merging it would leave the old parts behind.
 */
import { rm, stat } from 'node:fs/promises'
import { seconds } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { checkProperties } from '#base/schema/check.ts'
import { integer } from '#base/schema/schema.ts'
import { asFileFault } from '#host/files.ts'
import type { DatastoreDeps } from '../../deps.ts'
import { KeptSegments } from '../kept-segments.ts'
import {
  type CanaryAttempt,
  lockedFault,
  type Place,
  type PlacedObject,
  type PlaceLock,
  type ReadPlan,
} from '../place.ts'
import { ReadAhead, remoteNearBytes } from '../read-ahead.ts'
import { sendCanary } from './canary.ts'
import { reachS3, type S3Options, type S3Reach } from './client.ts'
import { noServerFault } from './faults.ts'
import { contentOf, fileContent } from './content.ts'
import { S3Objects } from './objects.ts'
import { seal, unseal } from '../../sealed.ts'
import { slackSeconds } from '../retention.ts'
import { Staging } from '../staging.ts'

const retentionName = 'retention'
const retentionMaximumBytes = 4_096
/** Of one PUT, as the protocol has it. */
const objectMaximumBytes = 5 * 1024 ** 3
const locked = ['packs/', 'backups/', 'keys/', 'format', retentionName]
const properties = { seconds: integer({ minimum: 1, maximum: 100 * 366 * 24 * 60 * 60 }) }

export interface S3PlaceOptions extends S3Options {
  readonly attempts?: number | undefined
  /** Before anything answered; as often as later when absent. */
  readonly attemptsAtFirst?: number | undefined
  readonly firstWaitMs?: number | undefined
  /** Folder for what is on its way, of ours alone; one of the machine's for such things when absent. */
  readonly stagingHome?: string | undefined
  /** Folder in which parts of the index stay for the next process; they go with this one when absent. */
  readonly keptHome?: string | undefined
}

export class S3Place implements Place {
  readonly label: string
  readonly #objects: S3Objects
  readonly #reach: S3Reach
  readonly #bucket: string
  readonly #deps: DatastoreDeps
  readonly #staging: Staging
  readonly #segments: KeptSegments
  readonly #packs: ReadAhead
  readonly nearBytes = remoteNearBytes
  readonly #hasLock: boolean
  #retainSeconds: number | undefined
  /** Nobody can say how long: then nothing is put that would need a lock, and nothing is removed. What is there can be read. */
  #retainDamage: Fault | undefined
  #knowsConditions: Promise<void> | undefined

  private constructor(
    reach: S3Reach,
    options: S3PlaceOptions,
    deps: DatastoreDeps,
    found: { staging: Staging; hasVersions: boolean; hasLock: boolean },
  ) {
    const { bucket, prefix, pageObjects, attempts, firstWaitMs } = options
    this.label = `s3://${bucket}${prefix === '' ? '' : `/${prefix}`}`
    this.#reach = reach
    this.#bucket = bucket
    this.#deps = deps
    this.#hasLock = found.hasLock
    const patience = { clock: deps.clock, random: deps.random, attempts, firstWaitMs }
    this.#objects = new S3Objects({ ...reach, bucket, prefix, pageObjects, hasVersions: found.hasVersions, patience })
    this.#staging = found.staging
    const kept = { staging: found.staging.path, home: options.keptHome, random: deps.random }
    this.#segments = new KeptSegments({ ...kept, elsewhere: this.#objects })
    this.#packs = new ReadAhead(this.#objects)
  }

  /** @throws Fault `missing` without such a bucket, `denied`, `unavailable` */
  static async open(options: S3PlaceOptions, deps: DatastoreDeps): Promise<S3Place> {
    const reach = await reachS3(options, deps.clock)
    const staging = await Staging.open(deps.random, options.stagingHome)
    try {
      const atFirst = options.attemptsAtFirst === undefined ? {} : { attempts: options.attemptsAtFirst }
      const asking = new S3Objects({
        ...reach,
        ...options,
        hasVersions: false,
        patience: { ...deps, ...options, ...atFirst },
      })
      const Bucket = options.bucket
      const { Status } = await askVersioning(asking, reach, Bucket).catch((fault: unknown) => {
        // Who knows no such bucket says so.
        throw isFault(fault, 'missing') && fault.message.startsWith('object')
          ? noServerFault(reach.server, fault)
          : fault
      })
      if (reach.said.isPage) throw noServerFault(reach.server)
      const hasVersions = Status !== undefined
      const place = new S3Place(reach, options, deps, {
        staging,
        hasVersions,
        // Without versions there are no locks.
        hasLock: hasVersions && (await hasObjectLock(asking, reach, Bucket)),
      })
      await place.#readRetention()
      return place
    } catch (fault) {
      await staging[Symbol.asyncDispose]()
      reach.client.destroy()
      throw fault
    }
  }

  get stagingDir(): string {
    return this.#staging.path
  }

  get canRetain(): boolean {
    return this.#hasLock
  }

  /** There are no folders to make. */
  async prepare(): Promise<void> {}

  /** From now on what is put is kept that long. @throws Fault `invalid` where the bucket cannot do that */
  async retain(forSeconds: number): Promise<void> {
    if (!this.#hasLock) {
      throw new Fault('invalid', `bucket '${this.#bucket}' has no Object Lock, so nothing in it can be retained`, {
        remedy: 'Object Lock is chosen when a bucket is made.',
      })
    }
    this.#retainSeconds = forSeconds
    this.#retainDamage = undefined
    await this.put(retentionName, Buffer.from(seal({ seconds: forSeconds })))
  }

  async #readRetention(): Promise<void> {
    if (!this.#hasLock) return
    const text = await this.#objects.get(retentionName, retentionMaximumBytes)
    if (!text) return
    try {
      const value = Object(unseal(text.toString('utf8'), `'${retentionName}'`)) as Record<string, unknown>
      const checked = checkProperties(properties, value)
      if (!checked.ok) throw new Fault('damaged', 'it says something else')
      this.#retainSeconds = checked.values.seconds
    } catch (cause) {
      if (!isFault(cause, 'damaged')) throw cause
      const message = `'${retentionName}' in '${this.label}' is damaged, and does not say how long backups are kept`
      const remedy = 'What is there can be restored and copied: hako datastore sync.'
      this.#retainDamage = new Fault('damaged', message, { cause, remedy })
    }
  }

  get #retains(): number | undefined {
    if (this.#retainDamage) throw this.#retainDamage
    return this.#retainSeconds
  }

  /** Where locks are kept there is one to try them on. */
  get canary(): (() => Promise<CanaryAttempt[]>) | undefined {
    if (this.#retains === undefined) return undefined
    const cage = { ...this.#reach, objects: this.#objects, bucket: this.#bucket, deps: this.#deps }
    return () => sendCanary({ ...cage, until: this.#untilNow() })
  }

  get lock(): PlaceLock | undefined {
    const retainSeconds = this.#retains
    if (retainSeconds === undefined) return undefined
    return {
      retainSeconds,
      until: (name) => this.#lockedUntil(name),
      extend: (name, until) => this.#extend(name, until),
    }
  }

  async #lockedUntil(name: string): Promise<number | undefined> {
    const { client, library } = this.#reach
    const version = await this.#objects.current(name)
    if (!version) return undefined
    const which = { Bucket: this.#bucket, Key: this.#objects.keyOf(name), VersionId: version.id }
    const { ObjectLockRetainUntilDate: date } = await this.#objects.ask(name, () =>
      client.send(new library.HeadObjectCommand(which)),
    )
    const until = date === undefined ? 0 : Math.ceil(date.getTime() / 1000)
    return until > seconds(this.#deps.clock) ? until : undefined
  }

  async #extend(name: string, until: number): Promise<void> {
    const { client, library } = this.#reach
    const version = await this.#objects.current(name)
    if (!version) return
    const which = { Bucket: this.#bucket, Key: this.#objects.keyOf(name), VersionId: version.id }
    const retention = { Mode: 'COMPLIANCE', RetainUntilDate: new Date(until * 1000) } as const
    await this.#objects.ask(name, () =>
      client.send(new library.PutObjectRetentionCommand({ ...which, Retention: retention })),
    )
  }

  /** Of what is put now. */
  #untilFor(name: string): number | undefined {
    const isKept = locked.some((one) => name.startsWith(one)) && this.#retains !== undefined
    return isKept ? this.#untilNow(name) : undefined
  }

  /** A backup is kept as long as was promised; what others will rely on, for longer by the slack. */
  #untilNow(name = ''): number {
    const promised = this.#retains ?? 0
    return seconds(this.#deps.clock) + promised + (name.startsWith('backups/') ? 0 : slackSeconds(promised))
  }

  #requireClock(): Promise<void> {
    const { time, server } = this.#reach
    return time.requireNear(server, () => askVersioning(this.#objects, this.#reach, this.#bucket))
  }

  async putFile(name: string, path: string): Promise<boolean> {
    await this.#requireClock()
    const isNew = await this.#upload(name, path, true)
    if (KeptSegments.isOne(name)) await this.#segments.adopt(name, path)
    else await rm(path, { force: true })
    return isNew
  }

  async replaceFile(name: string, path: string): Promise<void> {
    // The oldest version counts: another one beside it would only cost.
    const until = this.#hasLock ? await this.#lockedUntil(name) : undefined
    if (until !== undefined) throw lockedFault(`'${name}'`, until)
    await this.#upload(name, path, false)
    this.#packs.forget(name)
    await rm(path, { force: true })
    await this.#unlocked(name, () => this.#dropOldVersions(name))
  }

  /** Both kinds of files are called by what is in them. */
  async #upload(name: string, path: string, onlyNew: boolean): Promise<boolean> {
    const { size } = await stat(path).catch((cause: unknown) => {
      throw asFileFault(cause, path)
    })
    if (size > objectMaximumBytes) throw new Fault('too-large', `'${name}' has ${size} bytes, too many for one object`)
    const content = await fileContent(path, size)
    return this.#objects.put(name, content, { onlyNew, until: this.#untilFor(name) })
  }

  async put(name: string, content: Uint8Array): Promise<boolean> {
    await this.#requireClock()
    await this.#requireConditions()
    return this.#objects.put(name, contentOf(content), { onlyNew: true, until: this.#untilFor(name) })
  }

  /** Without versions it is the server that sees to it that a name has one owner: some do not know how. */
  #requireConditions(): Promise<void> {
    if (this.#objects.hasVersions) return Promise.resolve()
    this.#knowsConditions ??= this.#tryConditions()
    return this.#knowsConditions
  }

  async #tryConditions(): Promise<void> {
    // Each with a content of its own: then what is there says whose it is, though an answer be lost.
    const probe = () => this.#objects.put('probe', contentOf(Buffer.from(this.#deps.random.uuid())), { onlyNew: true })
    if (!(await probe()) || !(await probe())) return
    throw new Fault('invalid', `'${this.#reach.server}' replaces what is there though it is asked not to`, {
      remedy: 'Turn on versioning for the bucket: then a name has one owner all the same.',
    })
  }

  async replace(name: string, content: Uint8Array): Promise<void> {
    await this.#requireClock()
    await this.#objects.put(name, contentOf(content), { onlyNew: false })
    await this.#dropOldVersions(name)
  }

  async #dropOldVersions(name: string): Promise<void> {
    if (this.#objects.hasVersions) await this.#objects.removeVersions(name, ({ isLatest }) => !isLatest)
  }

  get(name: string, maximumBytes: number): Promise<Buffer | undefined> {
    return this.#objects.get(name, maximumBytes)
  }

  read(name: string, offset: number, length: number, room?: Buffer): Promise<Buffer> {
    if (KeptSegments.isOne(name)) return this.#segments.read(name, offset, length)
    return ReadAhead.isOne(name)
      ? this.#packs.read(name, offset, length, room)
      : this.#objects.read(name, offset, length)
  }

  plan(): ReadPlan {
    return this.#packs.plan()
  }

  sizeOf(name: string): Promise<number> {
    if (KeptSegments.isOne(name)) return this.#segments.sizeOf(name)
    return ReadAhead.isOne(name) ? this.#packs.sizeOf(name) : this.#objects.sizeOf(name)
  }

  requireWhole(name: string): Promise<void> {
    return this.#segments.requireWhole(name)
  }

  list(folder: string): AsyncIterable<PlacedObject> {
    return this.#objects.list(folder)
  }

  async remove(name: string): Promise<boolean> {
    // Whoever clears away one of the dead has judged it by the clock.
    if (name.startsWith('leases/')) await this.#requireClock()
    this.#segments.forget(name)
    this.#packs.forget(name)
    return this.#unlocked(name, () => this.#objects.remove(name))
  }

  /** Says until when, where a lock is what forbids it. */
  async #unlocked<T>(name: string, act: () => Promise<T>): Promise<T> {
    try {
      return await act()
    } catch (fault) {
      if (!isFault(fault, 'denied') || !this.#hasLock) throw fault
      const until = await this.#lockedUntil(name).catch(() => undefined)
      throw until === undefined ? fault : lockedFault(`'${name}'`, until)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#segments[Symbol.asyncDispose]()
    await this.#staging[Symbol.asyncDispose]()
    this.#reach.client.destroy()
  }
}

function askVersioning(objects: S3Objects, { client, library }: S3Reach, Bucket: string) {
  return objects.ask('the versioning', () => client.send(new library.GetBucketVersioningCommand({ Bucket })))
}

async function hasObjectLock(objects: S3Objects, { client, library }: S3Reach, Bucket: string): Promise<boolean> {
  const asked = objects.ask('the Object Lock', async () => {
    try {
      return await client.send(new library.GetObjectLockConfigurationCommand({ Bucket }))
    } catch (cause) {
      const { name } = Object(cause) as { name?: string }
      if (name === 'ObjectLockConfigurationNotFoundError') return undefined
      throw cause
    }
  })
  return (await asked)?.ObjectLockConfiguration?.ObjectLockEnabled === 'Enabled'
}
