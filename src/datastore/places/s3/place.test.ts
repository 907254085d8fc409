/** S3, on a real server: radosgw of the distribution. */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { after, test } from 'node:test'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  ListObjectVersionsCommand,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { badWay } from '../../../../test/fixtures/bad-way.ts'
import { deps, disk, memorySource } from '../../../../test/fixtures/datastore.ts'
import { backUp, makeDatastoreIn, point, restored, secret } from '../../../../test/fixtures/sealed-datastore.ts'
import { tryCanary } from '../../locks/canary.ts'
import { killedAtRandom } from '../../../../test/fixtures/killed-datastore.ts'
import { objectStore } from '../../../../test/fixtures/object-store.ts'
import { placeConformance } from '../conformance.ts'
import { openDatastore } from '../../datastore.ts'
import { defaultChunkBytes, kinds } from '../../format.ts'
import { collectGarbage } from '../../collect/garbage.ts'
import { firstKeyFile, keyFileName, printKeyFile, withSecrets } from '../../keys/key-file.ts'
import { newSecrets, rotated } from '../../keys/keyring.ts'
import { lastExtended } from '../../locks/locks.ts'
import { packName } from '../../packs/pack.ts'
import { seal } from '../../sealed.ts'
import { refetch } from '../../copy/refetch.ts'
import { S3Place, type S3PlaceOptions } from './place.ts'
import { verifyBackup, verifyPacks } from '../../verify/verify.ts'

const server = await objectStore()
after(() => server[Symbol.asyncDispose]())

async function inBucket(options: { readonly lock?: boolean } = {}): Promise<{ readonly s3: S3PlaceOptions }> {
  const { endpoint, credentialsFile } = server
  return {
    s3: { bucket: await server.bucket(options), prefix: 'site/backups', endpoint, credentialsFile, pageObjects: 50 },
  }
}

placeConformance('a bucket', () => inBucket())
placeConformance('a bucket with versions', () => inBucket({ lock: true }))

/** Somebody who has stolen the credentials, and does not speak through us. */
function thief(): S3Client {
  const credentials = { accessKeyId: server.accessKey, secretAccessKey: server.secretKey }
  return new S3Client({
    endpoint: server.endpoint,
    region: 'default',
    forcePathStyle: true,
    credentials,
    maxAttempts: 1,
  })
}

const thiefsWay = { secret: { kind: 'key', key: Buffer.alloc(32, 1) }, confirmed: true, created: 0 } as const

test('a thief of the credentials can neither remove, nor replace, nor hide what is locked', async () => {
  const spec = await inBucket({ lock: true })
  {
    await using place = await S3Place.open(spec.s3, deps)
    await place.retain(3_600)
  }
  await using made = await makeDatastoreIn(spec)
  const content = disk('rt.r')
  await backUp(await made.reopen(), point(0), { scsi0: content })
  const client = thief()
  const { Versions = [] } = await client.send(new ListObjectVersionsCommand({ Bucket: spec.s3.bucket }))
  const isKept = (key: string) => !/\/(?:segments|leases|probe)/.test(key)
  for (const { Key = '', VersionId } of Versions.filter((one) => isKept(one.Key ?? ''))) {
    const which = { Bucket: spec.s3.bucket, Key }
    await assert.rejects(client.send(new DeleteObjectCommand({ ...which, VersionId })), { name: 'AccessDenied' }, Key)
    await client.send(new PutObjectCommand({ ...which, Body: randomBytes(100) }))
    if (!Key.includes('format')) await client.send(new DeleteObjectCommand(which))
  }
  // Nobody can remove it any more, and nobody is shut out by it: the next change of keys takes the number behind it.
  const forged = printKeyFile(await firstKeyFile(deps.random, randomUUID(), newSecrets(deps.random), [thiefsWay]))
  for (const Key of ['00000002', '99999999'].map((number) => `${spec.s3.prefix}/keys/${number}`)) {
    const until = new Date(deps.clock.now() + 3_600_000)
    const lock = { ObjectLockMode: 'COMPLIANCE', ObjectLockRetainUntilDate: until } as const
    await client.send(new PutObjectCommand({ Bucket: spec.s3.bucket, Key, Body: forged, ...lock }))
  }
  client.destroy()
  {
    const { datastore, unlocked, keyring } = await made.reopen()
    const secrets = rotated(keyring.secrets, deps.random)
    await datastore.putKeyFile(withSecrets(deps.random, unlocked, secrets))
  }
  const open = await made.reopen()
  assert.equal(open.unlocked.file.generation, 3)
  assert.deepEqual(
    (await open.datastore.list()).map(({ damage }) => damage),
    [undefined],
  )
  assert.deepEqual((await verifyPacks(open.datastore)).damaged, [])
  assert.ok((await restored(open, point(0), 'scsi0')).equals(content))
  // A new backup of the same content relies on the old one, and goes beside what the thief put.
  assert.equal((await backUp(open, point(1), { scsi0: content })).disks[0]?.newChunks, 0)
  await assert.rejects(open.datastore.remove(point(0)), /backup vm\/100\/\S+ is locked until \d{4}-/)
  // A minute apart, as the clocks of two machines may be.
  const late = { ...deps, clock: { ...deps.clock, now: () => deps.clock.now() - 60_000 } }
  await using place = await S3Place.open(spec.s3, late)
  const { attempts, isSafe } = await tryCanary(await openDatastore(place, late))
  assert.ok(isSafe, JSON.stringify(attempts))
  assert.deepEqual(
    attempts.slice(0, 6).map(({ attempt }) => attempt),
    ['shorten', 'bypass', 'delete', 'overwrite', 'hide', 'extended'],
  )
})

test('garbage waits for its lock, and what is needed is locked for longer', async () => {
  const spec = await inBucket({ lock: true })
  {
    await using place = await S3Place.open(spec.s3, deps)
    await place.retain(3)
  }
  await using made = await makeDatastoreIn(spec)
  const shared = disk('rr')
  await backUp(await made.reopen(), point(0), { scsi0: Buffer.concat([shared, randomBytes(5 * MiB)]) })
  await backUp(await made.reopen(), point(1), { scsi0: shared })
  const earlier = await made.reopen()
  const secrets = rotated(earlier.keyring.secrets, deps.random)
  await earlier.datastore.putKeyFile(withSecrets(deps.random, earlier.unlocked, secrets))
  const open = await made.reopen()
  const { datastore } = open
  // What opened it before cannot be removed yet.
  const oldKeysUntil = (await datastore.removeOldKeyFiles(2)) ?? 0
  assert.ok(oldKeysUntil > 0)
  const until = (await datastore.lockedUntil(point(0))) ?? 0
  const isAlmostOver = () => deps.clock.now() / 1000 > until - 1
  await waitFor(isAlmostOver, { what: 'most of the time', timeoutMs: 8_000 })
  assert.ok(((await collectGarbage(open)).extendedLocks ?? 0) > 0)
  const keysUntil = (generation: number) => datastore.place.lock?.until(keyFileName(generation))
  assert.ok(((await keysUntil(2)) ?? 0) > oldKeysUntil)
  assert.ok(((await keysUntil(1)) ?? 0) <= oldKeysUntil, 'nobody makes the lock of an old way in longer')
  const isOver = async () => (await datastore.lockedUntil(point(0))) === undefined
  await waitFor(isOver, { what: 'the lock of the backup', timeoutMs: 8_000 })
  await datastore.remove(point(0))
  const first = await collectGarbage(open)
  // What lives in the pack was written anew at once; the pack itself stays until its own lock is over.
  assert.equal(first.rewrittenPacks, 1)
  assert.ok((first.lockedUntil ?? 0) > until)
  const isRemoved = async () => (await datastore.removeOldKeyFiles(2)) === undefined
  await waitFor(isRemoved, { what: 'the end of the old keys', timeoutMs: 8_000 })
  assert.equal(await datastore.place.get(keyFileName(1), 4_096), undefined)
  const before = (await verifyPacks(datastore)).bytes
  const isFree = async () => {
    const { lockedPacks } = await collectGarbage(open)
    return lockedPacks === undefined
  }
  await waitFor(isFree, { what: 'the lock of the pack', timeoutMs: 8_000 })
  assert.ok((await verifyPacks(datastore)).bytes < before - 4 * MiB)
  const [pack = ''] = open.index.segments.flatMap(({ packs }) => packs)
  const kept = (await datastore.place.lock?.until(packName(pack))) ?? 0
  assert.ok(kept > until + 1, 'a pack that is needed is kept for longer')
  assert.ok((await restored(await made.reopen(), point(1), 'scsi0')).equals(shared))
})

type Damage = (content: Buffer) => Buffer | undefined

const flipped: Damage = (content) => {
  content.writeUInt8(content.readUInt8(60) ^ 1, 60)
  return content
}

const damages: Readonly<Record<string, Damage>> = {
  'a bit flipped': flipped,
  'half of it gone': (content) => content.subarray(0, content.length / 2),
  'all of it gone, but its name': () => Buffer.alloc(0),
  'something else': () => Buffer.from(seal({ seconds: 'many', time: 'once' })),
  gone: () => undefined,
}

interface Damaged {
  /** What keys end with. */
  readonly key: string
  readonly damage?: Damage
  readonly until: Date
}

/** Damage on the side of the server: all there is as it was, but for one object, under locks from its first moment. */
async function copyOf(
  from: S3PlaceOptions,
  to: S3PlaceOptions,
  { key, damage = flipped, until }: Damaged,
): Promise<void> {
  const client = thief()
  const lock = { ObjectLockMode: 'COMPLIANCE', ObjectLockRetainUntilDate: until } as const
  const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket: from.bucket }))
  for (const { Key = '' } of Contents) {
    const { Body } = await client.send(new GetObjectCommand({ Bucket: from.bucket, Key }))
    const whole = Buffer.from((await Body?.transformToByteArray()) ?? [])
    const content = Key.endsWith(key) ? damage(whole) : whole
    if (!content) continue
    const isKept = /\/(?:packs|backups|keys)\/|\/(?:format|retention)$/.test(Key)
    await client.send(new PutObjectCommand({ Bucket: to.bucket, Key, Body: content, ...(isKept && lock) }))
  }
  client.destroy()
}

test('what is damaged and locked cannot be replaced: it is stored beside, from the guest or from a copy', async () => {
  const [plain, spec] = [await inBucket(), await inBucket({ lock: true })]
  const content = disk('rrrr')
  let pack = ''
  {
    await using made = await makeDatastoreIn(plain)
    await backUp(await made.reopen(), point(0), { scsi0: content })
    const open = await made.reopen()
    const found = await open.index.find(open.keyring.idOf(kinds.content, content.subarray(0, defaultChunkBytes)))
    pack = found?.pack ?? ''
  }
  const soon = new Date(deps.clock.now() + 3_600_000)
  for (const from of ['the guest', 'a copy'] as const) {
    const { s3 } = from === 'the guest' ? spec : await inBucket({ lock: true })
    await copyOf(plain.s3, s3, { key: pack, until: soon })
    const reopened = async () => {
      const place = await S3Place.open(s3, deps)
      after(() => place[Symbol.asyncDispose]())
      return (await openDatastore(place, deps)).unlock(secret)
    }
    {
      await using place = await S3Place.open(s3, deps)
      await place.retain(3_600)
    }
    const open = await reopened()
    await assert.rejects(restored(open, point(0), 'scsi0'), new RegExp(`pack ${pack} is damaged`))
    assert.deepEqual((await verifyPacks(open.datastore)).damaged, [pack])
    if (from === 'the guest') await backUp(await reopened(), point(1), { scsi0: content })
    else {
      await using place = await S3Place.open(plain.s3, deps)
      const copy = await openDatastore(place, deps)
      const keyless = await refetch(open.datastore, copy)
      assert.deepEqual(keyless, { fetched: [], missing: [], locked: [packName(pack)] })
      const { fetched } = await refetch(open.datastore, copy, { keys: open.unlocked })
      assert.deepEqual(fetched, [packName(pack)])
    }
    const mended = await reopened()
    assert.ok((await restored(mended, point(0), 'scsi0')).equals(content), from)
    await verifyBackup(mended, point(0))
    // Garbage is collected beside it, and does not bring it back.
    await collectGarbage(mended)
    assert.ok((await restored(await reopened(), point(0), 'scsi0')).equals(content), from)
  }
})

test('where nobody can say any more how long backups are kept, or since when locks hold, nothing goes, and all can be read', async () => {
  const spec = await inBucket({ lock: true })
  {
    await using place = await S3Place.open(spec.s3, deps)
    await place.retain(3_600)
  }
  await using made = await makeDatastoreIn(spec)
  const content = disk('rr')
  await backUp(await made.reopen(), point(0), { scsi0: content })
  await backUp(await made.reopen(), point(1), { scsi0: disk('r') })
  await collectGarbage(await made.reopen())
  const until = new Date(deps.clock.now() + 3_600_000)
  const client = thief()
  for (const [how, damage] of Object.entries(damages)) {
    const { s3 } = await inBucket({ lock: true })
    await copyOf(spec.s3, s3, { key: 'retention', damage, until })
    await using place = await S3Place.open(s3, deps)
    const open = await (await openDatastore(place, deps)).unlock(secret)
    assert.ok((await restored(open, point(0), 'scsi0')).equals(content), how)
    await verifyBackup(open, point(1))
    if (how === 'gone') {
      // The locks themselves hold, and whoever looks each day is told.
      await assert.rejects(tryCanary(open.datastore), (fault) => isFault(fault, 'unproven'))
      await assert.rejects(open.datastore.remove(point(0)), /is locked until/)
      continue
    }
    const isNamed = (fault: unknown) => isFault(fault, 'damaged') && /'retention' in 's3:.* does not say how long/.test(fault.message) // prettier-ignore
    await assert.rejects(tryCanary(open.datastore), isNamed, how)
    await assert.rejects(open.datastore.remove(point(0)), isNamed, how)
    await assert.rejects(backUp(open, point(2), { scsi0: disk('r') }), isNamed, how)
    await assert.rejects(collectGarbage(open), isNamed, how)
    assert.equal((await open.datastore.points()).length, 2)
  }
  for (const [how, damage] of Object.entries(damages)) {
    const which = { Bucket: spec.s3.bucket, Key: `${spec.s3.prefix}/extended` }
    const { Body } = await client.send(new GetObjectCommand(which))
    const damaged = damage(Buffer.from((await Body?.transformToByteArray()) ?? []))
    await client.send(damaged ? new PutObjectCommand({ ...which, Body: damaged }) : new DeleteObjectCommand(which))
    const open = await made.reopen()
    // A marker that something is deleted hides nothing.
    assert.equal((await lastExtended(open.datastore)) > 0, how === 'gone', how)
    assert.equal((await collectGarbage(open)).removedPacks, 0)
    assert.ok((await lastExtended(open.datastore)) > 0, how)
    const { attempts, isSafe } = await tryCanary(open.datastore)
    assert.ok(isSafe, JSON.stringify(attempts))
    await assert.rejects(open.datastore.remove(point(0)), /is locked until/)
    assert.ok((await restored(open, point(0), 'scsi0')).equals(content), how)
  }
  client.destroy()
})

test('of whoever is killed while a bucket is written to nothing is lost, and a copy there holds whole backups', async () => {
  const home = await mkdtemp(join(tmpdir(), 'hako-killed-'))
  try {
    const { compared } = await killedAtRandom({
      main: { folder: join(home, 'main') },
      copy: await inBucket(),
      kills: 8,
    })
    assert.ok(compared > 0, 'no backup was ever complete')
  } finally {
    await rm(home, { recursive: true })
  }
})

test('a canary sings where something is not locked, and nothing is claimed where nothing locks', async () => {
  const spec = await inBucket({ lock: true })
  await using made = await makeDatastoreIn(spec)
  const open = await made.reopen()
  await backUp(open, { ...point(0), time: Math.floor(deps.clock.now() / 1000) }, { scsi0: disk('r') })
  await assert.rejects(tryCanary(open.datastore), (fault) => isFault(fault, 'unproven'))
  {
    await using place = await S3Place.open(spec.s3, deps)
    await place.retain(3_600)
  }
  const { attempts, isSafe } = await tryCanary((await made.reopen()).datastore)
  assert.equal(isSafe, false)
  assert.match(attempts.find(({ refused }) => !refused)?.attempt ?? '', /^newest/)
  await using plain = await S3Place.open((await inBucket()).s3, deps)
  await assert.rejects(plain.retain(3_600), /has no Object Lock/)
})

test('a bad way is tried again and again, and then said; no backup is half there', async () => {
  const { s3 } = await inBucket()
  await using way = await badWay(server.endpoint)
  await using made = await makeDatastoreIn({
    s3: { ...s3, endpoint: way.endpoint, attempts: 6, firstWaitMs: 5, idleMs: 150 },
  })
  const content = disk('rrrr')
  // Many requests fail, in one way after another.
  const ways = ['lose the answer', 'cut off', 'stand still', { status: 503 }, { status: 500 }] as const
  for (const mishap of ways) {
    let asked = 0
    const open = await made.reopen()
    way.decide = () => ((asked += 1) % (mishap === 'stand still' ? 8 : 3) === 0 ? mishap : 'none')
    const time = ways.indexOf(mishap)
    await backUp(open, point(time), { scsi0: content })
    assert.ok((await restored(open, point(time), 'scsi0')).equals(content), JSON.stringify(mishap))
    way.decide = () => 'none'
  }
  assert.equal((await (await made.reopen()).datastore.points()).length, ways.length)
  const refusals = [
    [{ status: 503 }, /answers 503 \(\S+\) \(tried 6 times\)/],
    ['cut off', /could not reach|cut '\S+' off/],
    ['stand still', /did not answer in time \(tried 6 times\)/],
  ] as const
  for (const [mishap, said] of refusals) {
    const open = await made.reopen()
    await using writer = await open.begin(point(10))
    await writer.addDisk('scsi0', memorySource(disk('rr')))
    way.decide = ({ method }) => (method === 'GET' || mishap !== 'cut off' ? mishap : 'none')
    await assert.rejects(mishap === 'cut off' ? open.body(point(0)) : writer.commit(), said)
    way.decide = () => 'none'
    assert.equal((await open.datastore.points()).length, ways.length)
  }
})

test('a clock that is far off is named, not the credentials', async () => {
  const spec = await inBucket()
  await using made = await makeDatastoreIn(spec)
  await backUp(await made.reopen(), point(0), { scsi0: disk('r') })
  const clock = { ...deps.clock, now: () => deps.clock.now() - 3_600_000 }
  await using place = await S3Place.open(spec.s3, { ...deps, clock })
  const late = await (await openDatastore(place, { ...deps, clock })).unlock(secret)
  await assert.rejects(backUp(late, point(1), { scsi0: disk('r') }), /the clock of this machine and that of/)
  // Whoever rescues something may have a wrong clock.
  assert.equal((await restored(late, point(0), 'scsi0')).length, disk('r').length)
})

// The last one: a server that was killed answers slowly for half a minute.
test('a server that dies in the middle of a backup is said, and the next backup is whole', async () => {
  const { s3 } = await inBucket()
  await using made = await makeDatastoreIn({ s3: { ...s3, attempts: 2, firstWaitMs: 5 } })
  const content = disk('rrrr')
  const open = await made.reopen()
  {
    await using writer = await open.begin(point(0))
    await writer.addDisk('scsi0', memorySource(content))
    server.signal('SIGKILL')
    await assert.rejects(writer.commit(), /could not reach 'http:\S+': ECONN\w+ \(tried 2 times\)/)
    await server.restart()
  }
  assert.deepEqual(await open.datastore.points(), [])
  await backUp(open, point(1), { scsi0: content })
  assert.ok((await restored(await made.reopen(), point(1), 'scsi0')).equals(content))
})
