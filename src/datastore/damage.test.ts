/**
 * A file of a datastore is no longer what was written: a bit of it, its last block, or half of it. Every kind of file there
 * can be has its turn. What is hit is named, nothing else is lost, and neither the next backup nor a collection of garbage
 * makes it worse.
 */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync } from 'node:fs'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { deps, disk, filesBelow } from '../../test/fixtures/datastore.ts'
import { makeManyFiles, unsettledSource } from '../../test/fixtures/every-entry.ts'
import { backUp, makeDatastore, point, restored, secret } from '../../test/fixtures/sealed-datastore.ts'
import { type SmallDisk, smallDisk } from '../../test/fixtures/small-disk.ts'
import { differences, treeManifest } from '../../test/fixtures/tree-manifest.ts'
import { type OpenDatastore, openDatastore } from './datastore.ts'
import { FolderPlace } from './places/folder-place.ts'
import { collectGarbage } from './collect/garbage.ts'
import { printPoint, type RestorePoint } from './point.ts'
import { restoreTree } from './tree/restore.ts'
import { verifyDatastore } from './verify/verify-datastore.ts'
import { verifyBackup, verifyPacks } from './verify/verify.ts'

const isDamage = (fault: unknown) => isFault(fault, 'damaged')

const manners: Readonly<Record<string, (content: Buffer) => Buffer>> = {
  'a bit flipped': (content) => flipped(content, randomInt(content.length)),
  'a bit flipped near its beginning': (content) => flipped(content, randomInt(Math.min(content.length, 64))),
  'a bit flipped near its end': (content) =>
    flipped(content, content.length - 1 - randomInt(Math.min(content.length, 64))),
  'its last block torn': (content) => content.fill(0, lastBlockOf(content)),
  'its last block gone': (content) => content.subarray(0, lastBlockOf(content)),
  'half of it gone': (content) => content.subarray(0, content.length / 2),
}

function flipped(content: Buffer, at: number): Buffer {
  content.writeUInt8(content.readUInt8(at) ^ (1 << randomInt(8)), at)
  return content
}

const lastBlockOf = ({ length }: Buffer) => Math.floor((length - 1) / 4096) * 4096

/** Of these every bit counts. */
const counts = /^(?:format|keys|packs|segments|backups|marks)\b/

suite('a datastore of which a file is damaged', () => {
  let room: SmallDisk
  let home: string
  let whole: string
  const disks = new Map<string, Buffer>()
  const noted = point(0)
  const container: RestorePoint = { ...point(2, '200'), type: 'ct' }
  let tree: readonly string[] = []
  let cases = 0

  before(async () => {
    home = await mkdtemp(join(tmpdir(), 'hako-damaged-'))
    room = await smallDisk(join(home, 'room'), 128 * MiB)
    whole = join(room.path, 'whole')
    await using made = await makeDatastore(join(room.path, 'first'), { chunkBytes: 64 * KiB })
    const open = await made.reopen()
    const [shared, gone] = [disk('rt'), randomBytes(5 * 64 * KiB)]
    for (const [name, content] of [
      [noted, Buffer.concat([shared, randomBytes(100_000)])],
      [point(1), Buffer.concat([shared, Buffer.alloc(MiB), randomBytes(100_000)])],
      [point(1, '101', 'office'), randomBytes(200_000)],
    ] as const) {
      await backUp(open, name, { scsi0: content })
      disks.set(printPoint(name), content)
    }
    const files = join(room.path, 'files')
    mkdirSync(files)
    makeManyFiles(files, 60)
    tree = treeManifest(files)
    {
      await using writer = await open.begin(container)
      await writer.addTree('rootfs', unsettledSource({ root: files }))
      await writer.commit()
    }
    await backUp(open, point(3, '102'), { scsi0: Buffer.concat([shared, gone]) })
    await open.datastore.remove(point(3, '102'))
    await collectGarbage(open, { graceSeconds: 3_600 })
    await open.datastore.mark(noted, { notes: 'before the update', protected: true })
    await verifyPacks(open.datastore)
    await writeFile(join(made.path, 'tmp', 'pack-of-somebody-who-died'), randomBytes(10_000))
    const [pack = ''] = await filesBelow(join(made.path, 'packs'))
    await open.datastore.place.put(`suspects/${pack.slice(-64)}`, Buffer.alloc(0))
    // What its owner held is free in a copy.
    await using _lease = await open.datastore.lease('write')
    await cp(made.path, whole, { recursive: true })
  })
  after(async () => {
    await room?.[Symbol.asyncDispose]()
    await rm(home, { recursive: true, force: true })
  })

  async function opened(path: string): Promise<AsyncDisposable & { readonly open: OpenDatastore }> {
    const folder = new FolderPlace(path, systemRandom)
    const open = await (await openDatastore(folder, deps)).unlock(secret)
    return { open, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() }
  }

  /** Names of backups that cannot be read. What can be read is right. */
  async function unreadable(path: string): Promise<string[]> {
    await using there = await opened(path)
    const { open } = there
    const found: string[] = []
    for (const one of await open.datastore.points()) {
      const name = printPoint(one)
      try {
        const content = disks.get(name)
        if (content) assert.ok((await restored(open, one, 'scsi0')).equals(content), name)
        else if (one.type === 'ct') assert.deepEqual(differences(tree, await treeOf(open, one)), [])
      } catch (fault) {
        // Of all keys there could be, a turned bit may name one there is not.
        if (!isDamage(fault) && !/is sealed with key number/.test(String(fault))) throw fault
        found.push(name)
      }
    }
    return found
  }

  async function treeOf(open: OpenDatastore, one: RestorePoint): Promise<string[]> {
    await using reader = await open.open(one)
    const target = mkdtempSync(join(room.path, 'tree-'))
    try {
      await restoreTree(reader, 'rootfs', { target })
      return treeManifest(target)
    } finally {
      await rm(target, { recursive: true })
    }
  }

  /** What happens to a datastore every night, and must not make anything worse. */
  async function night(path: string, mayRefuse: boolean): Promise<void> {
    const tidy = async () => {
      await using there = await opened(path)
      await collectGarbage(there.open).catch((fault: unknown) => assert.ok(mayRefuse && isDamage(fault), String(fault)))
    }
    await tidy()
    {
      await using there = await opened(path)
      const content = disks.get(printPoint(point(1))) ?? Buffer.alloc(0)
      await backUp(there.open, point(7), { scsi0: content })
      await there.open.datastore.remove(point(7))
    }
    await tidy()
  }

  async function check(file: string, content: Buffer, damaged: Buffer): Promise<void> {
    const path = join(room.path, `case-${(cases += 1)}`)
    await cp(whole, path, { recursive: true })
    await writeFile(join(path, file), damaged)
    const named = file.startsWith('backups') || file.startsWith('marks') ? /(?:manifest|marks) of .*(?:vm|ct)\// : new RegExp(file.slice(-64)) // prettier-ignore
    const isNamed = (fault: unknown) => isDamage(fault) && named.test(String(fault))
    if (/^(?:format|keys)/.test(file)) {
      await assert.rejects(opened(path), isNamed)
      await writeFile(join(path, file), content)
    }
    const lost = await unreadable(path)
    {
      await using there = await opened(path)
      const { open } = there
      if (/^(?:packs|backups|marks)/.test(file)) await assert.rejects(verifyDatastore(open), isNamed)
      else if (file.startsWith('segments')) {
        assert.deepEqual(lost, [])
        // Who finds it mends it: somebody who looks for damage, or what happens in the night.
        if (randomInt(2) === 0) assert.match((await verifyDatastore(open)).mended.join('\n'), named)
      } else {
        assert.deepEqual(lost, [])
        await verifyDatastore(open)
      }
      if (file.startsWith('backups')) assert.deepEqual(lost, [file.replace(/^backups\/(?:_\/)?/, '')])
      if (file.startsWith('marks')) {
        // They may have said that nobody removes it.
        await assert.rejects(open.datastore.remove(noted), isDamage)
        await verifyBackup(open, noted)
        await assert.rejects(open.datastore.remove(noted), /is protected/)
      }
    }
    await night(path, /^(?:packs|backups)/.test(file))
    if (file.startsWith('segments')) {
      await using there = await opened(path)
      assert.deepEqual((await verifyDatastore(there.open)).mended, [])
    } else if (/^(?:packs|backups)/.test(file) && existsSync(join(path, file))) {
      await writeFile(join(path, file), content)
    }
    assert.deepEqual(await unreadable(path), [])
    await night(path, false)
    for (const folder of ['tmp', 'leases', 'condemned']) assert.deepEqual(await filesBelow(join(path, folder)), [])
    assert.deepEqual(await unreadable(path), [])
    await rm(path, { recursive: true })
  }

  const kinds = {
    format: /^format$/,
    'its keys': /^keys\//,
    'a pack': /^packs\//,
    'a part of the index': /^segments\//,
    'a manifest': /^backups\//,
    marks: /^marks\//,
    'a list of what is condemned': /^condemned\/[^.]*$/,
    'since when that is': /^condemned\/.*\.at-/,
    'a lease of the dead': /^leases\/[^.]*$/,
    'what held it': /^leases\/.*\.held$/,
    'a mark of a suspect': /^suspects\//,
    'what was being written': /^tmp\//,
    'when packs were looked at': /^checked$/,
    'what is set aside': /^reserve$/,
  }

  test('has no file of a kind that has no turn here', async () => {
    for (const file of await filesBelow(whole)) {
      assert.equal(Object.values(kinds).filter((kind) => kind.test(file)).length, 1, file)
    }
  })

  for (const [kind, names] of Object.entries(kinds)) {
    test(`names it and loses nothing else: ${kind}`, async () => {
      const files = (await filesBelow(whole)).filter((file) => names.test(file))
      assert.ok(files.length > 0)
      const ways = Object.entries(manners)
      const turns = counts.test(files[0] ?? '') ? 4 : 2
      for (let turn = 0; turn < turns; turn += 1) {
        const file = files[randomInt(files.length)] ?? ''
        const content = await readFile(join(whole, file))
        const [manner, damage] = ways.splice(randomInt(ways.length), 1)[0] ?? ['', (same: Buffer) => same]
        // What is empty can only become something else.
        const damaged = content.length > 0 ? damage(Buffer.from(content)) : randomBytes(4_096)
        try {
          await check(file, content, damaged)
        } catch (cause) {
          throw new Error(`${file}: ${manner}`, { cause })
        }
      }
    })
  }
})
