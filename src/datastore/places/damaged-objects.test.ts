/**
 * An object of a datastore that lies elsewhere is no longer what was written: in a bucket, in one that locks, behind another
 * Hakobune. Every kind of object has its turn, with a bit flipped and with all of it gone. What is hit is named, nothing else is
 * lost, and neither the next backup nor a collection of garbage makes it worse.
 */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdtempSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { PutObjectCommand } from '@aws-sdk/client-s3'
import { KiB } from '#base/bytes.ts'
import { type Fault, isFault } from '#base/fault.ts'
import { inTurns } from '#base/in-turns.ts'
import { openPlace, type PlaceSpec } from '../../../test/fixtures/any-place.ts'
import { deps, disk, filesBelow } from '../../../test/fixtures/datastore.ts'
import { makeManyFiles, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { fetchObjects, s3Client } from '../../../test/fixtures/fetched-objects.ts'
import { objectStore } from '../../../test/fixtures/object-store.ts'
import { placeServer } from '../../../test/fixtures/place-server.ts'
import { backUp, makeDatastoreIn, point, restored, secret } from '../../../test/fixtures/sealed-datastore.ts'
import { differences, treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { type OpenDatastore, openDatastore } from '../datastore.ts'
import { leaseSeconds } from './lease.ts'
import { printPoint, type RestorePoint } from '../point.ts'
import { seal } from '../sealed.ts'
import { restoreTree } from '../tree/restore.ts'
import { verifyDatastore } from '../verify/verify-datastore.ts'
import { verifyBackup, verifyPacks } from '../verify/verify.ts'

/** Whoever keeps the objects of a place, and can do with them what no rule of the place allows. */
interface Keeper {
  /** Where nothing is yet. */
  readonly fresh: () => Promise<PlaceSpec>
  readonly put: (spec: PlaceSpec, name: string, content: Uint8Array) => Promise<void>
  /** What was put under a lock stays as it was put. */
  readonly locks?: boolean
}

const buckets = await objectStore()
after(() => buckets[Symbol.asyncDispose]())
const server = await placeServer()
after(() => server[Symbol.asyncDispose]())
const { endpoint, credentialsFile } = buckets
const client = await s3Client({ bucket: '', prefix: '', endpoint, credentialsFile })
after(() => client.destroy())

const until = new Date(deps.clock.now() + 3_600_000)
const lock = { ObjectLockMode: 'COMPLIANCE', ObjectLockRetainUntilDate: until } as const
const isLocked = /^(?:format$|keys\/|packs\/|backups\/|retention$)/

function ofBuckets(locks: boolean): Keeper {
  return {
    locks,
    fresh: async () => ({ s3: { bucket: await buckets.bucket({ lock: locks }), prefix: 'site', endpoint, credentialsFile } }), // prettier-ignore
    async put(spec, name, content) {
      if (!('s3' in spec)) throw new Error('that is no bucket')
      const which = { Bucket: spec.s3.bucket, Key: `${spec.s3.prefix}/${name}` }
      await client.send(new PutObjectCommand({ ...which, Body: content, ...(locks && isLocked.test(name) && lock) }))
    },
  }
}

let served = 0
const ofServer: Keeper = {
  fresh: async () => ({ https: server.reach(`site${(served += 1)}`) }),
  async put(spec, name, content) {
    if (!('https' in spec)) throw new Error('that is no server')
    const path = join(server.folder, new URL(spec.https.url).pathname, name)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, content)
  },
}

const isDamage = (fault: unknown): fault is Fault => isFault(fault, 'damaged')
/** When every lease of the dead is over. */
const later = { ...deps, clock: { ...deps.clock, now: () => deps.clock.now() + (leaseSeconds + 1) * 1000 } }

/** Without what opens it, nothing can be read. */
const openings = { 'what it says of itself': /^format$/, 'its keys': /^keys\// }
const needed = {
  'a pack': /^packs\//,
  'a part of the index': /^segments\//,
  'a manifest': /^backups\//,
  'what people say of a backup': /^marks\/[^.]*$/,
  'what a check found': /^marks\/.*\.found$/,
}
/** No backup needs it, and nobody misses it: one of each at once. */
const needless = {
  'a list of what is condemned': /^condemned\/[^.]*$/,
  'since when that is': /^condemned\/.*\.at-/,
  'a lease of the dead': /^leases\//,
  'a mark of a suspect': /^suspects\//,
  'when packs were looked at': /^checked$/,
}
/** These have a test of their own, or mean nothing. */
const others = { 'how long it keeps': /^retention$/, 'when locks were extended': /^extended$/, 'a probe': /^probe$/ }
const kinds = { ...openings, ...needed, ...needless, ...others }

function flipped(content: Buffer): Buffer {
  // What is empty can only become something else.
  if (content.length === 0) return randomBytes(100)
  const at = randomInt(content.length)
  const other = Buffer.from(content)
  other.writeUInt8(content.readUInt8(at) ^ (1 << randomInt(8)), at)
  return other
}

type Damage = ReadonlyMap<string, Buffer | undefined>

const home = mkdtempSync(join(tmpdir(), 'hako-damaged-'))
after(() => rm(home, { recursive: true }))

for (const [where, keeper] of Object.entries({
  'a bucket': ofBuckets(false),
  'a bucket that locks': ofBuckets(true),
  'another Hakobune': ofServer,
})) {
  suite(`a datastore in ${where} of which an object is damaged`, () => {
    const locks = keeper.locks === true
    const whole = new Map<string, Buffer>()
    const disks = new Map<string, Buffer>()
    /** Of a backup that was removed. */
    const garbage = new Set<string>()
    const noted = point(0)
    const container: RestorePoint = { ...point(2, '200'), type: 'ct' }
    const files = join(home, where.replaceAll(' ', '-'))
    let tree: readonly string[] = []

    before(async () => {
      const spec = await keeper.fresh()
      await using place = await openPlace(spec)
      await using made = await makeDatastoreIn(spec)
      const open = await made.reopen()
      const shared = disk('rt')
      for (const [name, content] of [
        [noted, Buffer.concat([shared, randomBytes(100_000)])],
        [point(1), Buffer.concat([shared, Buffer.alloc(256 * KiB), randomBytes(50_000)])],
        [point(1, '101', 'office'), randomBytes(200_000)],
      ] as const) {
        await backUp(open, name, { scsi0: content })
        disks.set(printPoint(name), content)
      }
      // The backup of the night.
      disks.set(printPoint(point(7)), disks.get(printPoint(point(1))) ?? Buffer.alloc(0))
      makeManyFiles(files, 20)
      tree = treeManifest(files)
      {
        await using writer = await open.begin(container)
        await writer.addTree('rootfs', unsettledSource({ root: files }))
        await writer.commit()
      }
      const standing = new Set<string>()
      for (const folder of ['packs/', 'segments/']) for await (const { name } of place.list(folder)) standing.add(name)
      const gone = point(3, '102')
      await backUp(open, gone, { scsi0: Buffer.concat([shared, randomBytes(200_000)]) })
      await open.datastore.remove(gone)
      await collectGarbage(open, { graceSeconds: 3_600 })
      await open.datastore.mark(noted, { notes: 'before the update', protected: true })
      await verifyBackup(open, noted)
      await verifyPacks(open.datastore)
      const [pack = ''] = open.index.segments.flatMap(({ packs }) => packs)
      await place.put(`suspects/${pack}`, Buffer.alloc(0))
      await using _lease = await open.datastore.lease('write')
      const folder = join(home, `objects of ${where}`)
      await fetchObjects(spec, folder)
      for (const name of await filesBelow(folder)) whole.set(name, await readFile(join(folder, name)))
      for (const name of whole.keys()) if (/^(?:packs|segments)/.test(name) && !standing.has(name)) garbage.add(name)
      // Copies are put under locks, from their first moment.
      if (locks) whole.set('retention', Buffer.from(seal({ seconds: 3_600 })))
    })

    /** All as it was, but for the damage. */
    async function placed(damage: Damage): Promise<PlaceSpec> {
      const spec = await keeper.fresh()
      await inTurns([...new Map<string, Buffer | undefined>([...whole, ...damage])], 8, async ([name, content]) => {
        if (content) await keeper.put(spec, name, content)
      })
      return spec
    }

    async function mended(spec: PlaceSpec, damage: Damage): Promise<void> {
      for (const name of damage.keys()) await keeper.put(spec, name, whole.get(name) ?? Buffer.alloc(0))
    }

    /** One that stands for its kind. */
    function oneOf(kind: RegExp): string {
      const those = [...whole.keys()].filter((name) => kind.test(name) && !garbage.has(name))
      assert.ok(those.length > 0, 'there is one')
      return those[randomInt(those.length)] ?? ''
    }

    async function opened(spec: PlaceSpec): Promise<AsyncDisposable & { readonly open: OpenDatastore }> {
      const place = await openPlace(spec)
      try {
        const open = await (await openDatastore(place, later)).unlock(secret)
        return { open, [Symbol.asyncDispose]: () => place[Symbol.asyncDispose]() }
      } catch (fault) {
        await place[Symbol.asyncDispose]()
        throw fault
      }
    }

    /** Names of backups that cannot be read. What can be read is right. */
    async function unreadable(open: OpenDatastore): Promise<string[]> {
      const found: string[] = []
      for (const one of await open.datastore.points()) {
        const name = printPoint(one)
        try {
          const content = disks.get(name)
          if (content) assert.ok((await restored(open, one, 'scsi0')).equals(content), name)
          else if (one.type === 'ct') assert.deepEqual(differences(tree, await treeOf(open)), [])
          else assert.fail(`nobody made ${name}`)
        } catch (fault) {
          // Of all keys there could be, a turned bit may name one there is not.
          if (!isDamage(fault) && !/is sealed with key number/.test(String(fault))) throw fault
          found.push(name)
        }
      }
      return found
    }

    async function treeOf(open: OpenDatastore): Promise<string[]> {
      await using reader = await open.open(container)
      const target = mkdtempSync(join(home, 'tree-'))
      await restoreTree(reader, 'rootfs', { target })
      return treeManifest(target)
    }

    /** What happens to a datastore every night, and must not make anything worse. */
    async function night(open: OpenDatastore, mayRefuse: boolean): Promise<void> {
      const content = disks.get(printPoint(point(7))) ?? Buffer.alloc(0)
      await backUp(open, point(7), { scsi0: content })
      assert.ok((await restored(open, point(7), 'scsi0')).equals(content))
      if (!locks) await open.datastore.remove(point(7))
      await collectGarbage(open).catch((fault: unknown) => assert.ok(mayRefuse && isDamage(fault), String(fault)))
    }

    /** @param look what has to be said of it, with the backups that are lost while it is so */
    async function contained(
      damage: Damage,
      look: (open: OpenDatastore, lost: readonly string[]) => Promise<void>,
    ): Promise<void> {
      const spec = await placed(damage)
      let lost: string[]
      {
        await using there = await opened(spec)
        lost = await unreadable(there.open)
        await look(there.open, lost)
        await night(
          there.open,
          [...damage.keys()].some((name) => /^(?:packs|backups)/.test(name)),
        )
      }
      // What is locked stays damaged: nobody can put anything in its place.
      if (!locks) {
        await mended(spec, damage)
        lost = []
      }
      await using there = await opened(spec)
      for (const name of await unreadable(there.open)) assert.ok(lost.includes(name), `${name} is lost`)
    }

    test('has no object of a kind that has no turn here', () => {
      for (const name of whole.keys())
        assert.equal(Object.values(kinds).filter((kind) => kind.test(name)).length, 1, name)
    })

    for (const [what, kind] of Object.entries(openings)) {
      test(`is not opened without it: ${what}`, async () => {
        const name = oneOf(kind)
        const content = whole.get(name) ?? Buffer.alloc(0)
        for (const damage of [new Map([[name, flipped(content)]]), new Map([[name, undefined]])]) {
          const spec = await placed(damage)
          const said = damage.get(name) ? new RegExp(name) : /does not exist|has no keys/
          await assert.rejects(opened(spec), said)
          if (locks && damage.get(name)) continue
          await mended(spec, damage)
          await using there = await opened(spec)
          assert.equal((await there.open.datastore.points()).length, 4)
        }
      })
    }

    for (const how of ['a bit flipped', 'gone'] as const) {
      const damaged = (name: string) =>
        new Map([[name, how === 'gone' ? undefined : flipped(whole.get(name) ?? Buffer.alloc(0))]])

      test(`names it and loses nothing else: a pack, ${how}`, async () => {
        const name = oneOf(needed['a pack'])
        await contained(damaged(name), async (open, lost) => {
          assert.ok(lost.length < 4, 'nothing else is lost')
          const said = new RegExp(`pack ${name.slice(-64)} is ${how === 'gone' ? 'gone' : 'damaged'}`)
          await assert.rejects(verifyDatastore(open), (fault) => isDamage(fault) && said.test(fault.message))
        })
      })

      test(`names it and loses nothing: a part of the index, ${how}`, async () => {
        const name = oneOf(needed['a part of the index'])
        await contained(damaged(name), async (open, lost) => {
          assert.deepEqual(lost, [])
          const said = how === 'gone' ? /a part of the index is lost/ : new RegExp(name)
          assert.match((await verifyDatastore(open)).mended.join('\n'), said)
        })
      })

      test(`loses nothing by what no backup needs, ${how}`, async () => {
        const all = Object.values(needless).flatMap((kind) => [...damaged(oneOf(kind))])
        await contained(new Map(all), async (open, lost) => {
          assert.deepEqual(lost, [])
          await verifyDatastore(open)
        })
      })
    }

    const ofBackup = (name: string) => name.replace(/^(?:backups|marks)\/(?:_\/)?/, '').replace(/\.found$/, '')
    const turned = (name: string) => new Map([[name, flipped(whole.get(name) ?? Buffer.alloc(0))]])

    test('names it and loses nothing else: a manifest, a bit flipped', async () => {
      const name = oneOf(needed['a manifest'])
      await contained(turned(name), async (open, lost) => {
        assert.deepEqual(lost, [ofBackup(name)])
        await assert.rejects(
          verifyDatastore(open),
          (fault) => isDamage(fault) && fault.message.includes(ofBackup(name)),
        )
      })
    })

    test('names it and loses nothing: what people say of a backup, a bit flipped', async () => {
      const name = oneOf(needed['what people say of a backup'])
      await contained(turned(name), async (open, lost) => {
        assert.deepEqual(lost, [])
        await assert.rejects(
          verifyDatastore(open),
          (fault) => isDamage(fault) && fault.message.includes(ofBackup(name)),
        )
        // They may have said that nobody removes it.
        await assert.rejects(open.datastore.remove(noted), isDamage)
      })
    })

    test('names it and loses nothing: what a check found, a bit flipped', async () => {
      const name = oneOf(needed['what a check found'])
      await contained(turned(name), async (open, lost) => {
        assert.deepEqual(lost, [])
        const listed = async () => (await open.datastore.list()).filter(({ damage }) => damage !== undefined)
        assert.deepEqual(
          (await listed()).map((one) => printPoint(one.point)),
          [ofBackup(name)],
        )
        await verifyBackup(open, noted)
        assert.deepEqual(await listed(), [])
      })
    })
  })
}
