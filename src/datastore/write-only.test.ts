/** Hosts that add backups and read none. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { disk } from '../../test/fixtures/datastore.ts'
import {
  backUp,
  point,
  restored,
  secret,
  temporaryDatastore,
  type TemporaryDatastore,
} from '../../test/fixtures/sealed-datastore.ts'
import { coding, kinds, shortIdBytes } from './format.ts'
import { collectGarbage } from './collect/garbage.ts'
import { withoutSlot, withSecrets, withWriter } from './keys/key-file.ts'
import { rotated } from './keys/keyring.ts'
import { packName, PackWriter } from './packs/pack.ts'
import { repairIndex } from './tidy/repair.ts'
import { writeSegment } from './index/segment.ts'
import { manifestName, printManifest } from './points/manifest.ts'
import { printRecoveryKey, type SlotSecret } from './keys/slot.ts'
import { verifyBackup, verifyIndex } from './verify/verify.ts'
import { privateOf, publicOf } from './keys/x25519.ts'

const chunk = 128 * KiB
const own = Buffer.alloc(32, 5)
const hostKey: SlotSecret = { kind: 'key', key: own }

/** The datastore knows of the host's key only the public half. */
async function addHost(temporary: TemporaryDatastore, namespace = ''): Promise<string> {
  const open = await temporary.reopen()
  const key = publicOf(privateOf(own))
  const way = { secret: { kind: 'key', public: key } as const, confirmed: true, created: 0 }
  const file = await withWriter(systemRandom, open.unlocked, way, namespace)
  await open.datastore.putKeyFile(file)
  return file.slots.at(-1)?.id ?? ''
}

const asHost = (temporary: TemporaryDatastore) => temporary.reopen(hostKey)

test('a host that only adds makes backups others read, shares chunks, and reads nothing itself, not even its own', async () => {
  await using temporary = await temporaryDatastore()
  await addHost(temporary, 'web')
  const shared = disk('rtrr')
  await backUp(await temporary.reopen(), point(0), { scsi0: shared })
  const host = await asHost(temporary)
  const mine = point(1, '100', 'web.one')
  const content = Buffer.concat([shared, disk('rt.r')])
  const body = await backUp(host, mine, { scsi0: content })
  assert.equal(body.disks[0]?.newChunks, 3)
  assert.equal((await backUp(host, point(2, '100', 'web.one'), { scsi0: content })).disks[0]?.newChunks, 0)
  for (const one of [point(0), mine]) {
    for (const act of [() => host.body(one), () => host.open(one), () => verifyBackup(host, one)]) {
      await assert.rejects(act, (fault) => isFault(fault, 'denied') && /adds backups.*opens none/.test(fault.message))
    }
  }
  const stored = Buffer.from(body.files[0]?.chunks[0] ?? '', 'hex')
  await assert.rejects(host.chunks.read(stored, kinds.content), (fault) => isFault(fault, 'denied'))
  for (const act of [() => collectGarbage(host), () => repairIndex(host)]) {
    await assert.rejects(act, (fault) => isFault(fault, 'denied'))
  }
  await assert.rejects(withWriter(systemRandom, host.unlocked, { secret, confirmed: true, created: 0 }), /opens none/)
  await assert.rejects(host.begin(point(3)), /adds backups to namespace 'web' alone/)
  const reader = await temporary.reopen()
  assert.deepEqual(
    (await reader.datastore.list()).map(({ damage }) => damage),
    [undefined, undefined, undefined],
  )
  assert.ok((await restored(reader, mine, 'scsi0')).equals(content))
  await verifyBackup(reader, mine)
  assert.deepEqual(await verifyIndex(reader), [])
  // Its packs are written anew like others.
  await reader.datastore.remove(mine)
  await collectGarbage(reader)
  assert.ok((await restored(reader, point(2, '100', 'web.one'), 'scsi0')).equals(content))
})

test('rotation reaches who only adds; taken away, it opens nothing any more, and what it made stays readable', async () => {
  await using temporary = await temporaryDatastore()
  const id = await addHost(temporary)
  const [before, after] = [disk('rr'), disk('rr')]
  await backUp(await asHost(temporary), point(0), { scsi0: before })
  const stored = new Map(await Promise.all((await filesBelow(temporary.path)).map(async (path) => [path, await readFile(path)] as const))) // prettier-ignore
  const admin = await temporary.reopen()
  await admin.datastore.putKeyFile(
    withSecrets(systemRandom, admin.unlocked, rotated(admin.keyring.secrets, systemRandom)),
  )
  for (const [path, bytes] of stored) assert.deepEqual(await readFile(path), bytes, 'no pack is written anew')
  await backUp(await asHost(temporary), point(1), { scsi0: after })
  const packs = await Promise.all((await filesBelow(temporary.path)).map((path) => readFile(path)))
  assert.deepEqual(new Set(packs.map((bytes) => bytes.readUInt32LE(8))), new Set([0, 1]))
  const again = await temporary.reopen()
  const secrets = rotated(again.keyring.secrets, systemRandom)
  await again.datastore.putKeyFile(withoutSlot(systemRandom, again.unlocked, id, secrets))
  await assert.rejects(asHost(temporary), /does not open the datastore/)
  const open = await temporary.reopen()
  assert.ok((await restored(open, point(0), 'scsi0')).equals(before))
  assert.ok((await restored(open, point(1), 'scsi0')).equals(after))
})

test('a host that lies about what it stored is found out before anything false is restored', async () => {
  await using temporary = await temporaryDatastore()
  await addHost(temporary)
  const host = await asHost(temporary)
  const content = randomBytes(chunk)
  const id = host.keyring.idOf(kinds.content, content)
  const place = host.datastore.place
  const path = join(place.stagingDir, 'lie')
  const pack = await PackWriter.create(path, { keyring: host.keyring, random: systemRandom, isMetadata: false })
  const entry = await pack.append(id, randomBytes(chunk), chunk, 0)
  const name = await pack.finish()
  await place.putFile(packName(name), path)
  const needs = { place, keyring: host.keyring, random: systemRandom }
  await writeSegment(needs, 1, [[{ ...entry, pack: name }]], [name])
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  const open = await temporary.reopen()
  await assert.rejects(
    restored(open, point(0), 'scsi0'),
    /pack \S+ is damaged: chunk \S+ it holds what belongs to another id/,
  )
  await assert.rejects(verifyBackup(open, point(0)), /is damaged/)
  // The next backup stores what it has, and with it the damaged one is whole.
  await backUp(await temporary.reopen(), point(1), { scsi0: content })
  for (const one of [point(0), point(1)]) {
    assert.ok((await restored(await temporary.reopen(), one, 'scsi0')).equals(content))
  }
})

test('what a host that only adds stored and nobody can unpack stays where it is, and garbage is collected all the same', async () => {
  await using temporary = await temporaryDatastore()
  await addHost(temporary)
  await backUp(await temporary.reopen(), point(0), { scsi0: disk('rrrr') })
  const host = await asHost(temporary)
  const { place } = host.datastore
  const path = join(place.stagingDir, 'unpackable')
  const pack = await PackWriter.create(path, { keyring: host.keyring, random: systemRandom, isMetadata: false })
  const [needed, garbage] = [randomBytes(32), randomBytes(32)]
  const entries = [
    await pack.append(needed, randomBytes(1_000), chunk, coding.zstd),
    // So little of the pack is alive that it would be written anew.
    await pack.append(garbage, randomBytes(100_000), 100_000, coding.raw),
  ]
  const name = await pack.finish()
  await place.putFile(packName(name), path)
  const named = entries.map((entry) => ({ ...entry, id: entry.id.subarray(0, shortIdBytes), pack: name }))
  const needs = { place, keyring: host.keyring, random: systemRandom }
  await writeSegment(needs, 2, [named.toSorted((a, b) => a.id.compare(b.id))], [name])
  const file = { name: 'x', sizeBytes: chunk, chunks: [needed.toString('hex')] }
  const head = { point: point(1), pointInTime: '2026-11-20T10:00:00.000Z', finished: point(1).time }
  const body = { disks: [], trees: [], files: [file], facts: {} }
  await place.put(manifestName(point(1)), Buffer.from(printManifest(host.keyring, systemRandom, head, body)))
  const open = await temporary.reopen()
  await open.datastore.remove(point(0))
  const { removedPacks } = await collectGarbage(open)
  assert.ok(removedPacks > 0, 'what the other backup needed has gone')
  const left = await Array.fromAsync(open.datastore.place.list('packs/'))
  assert.deepEqual(
    left.map((one) => one.name),
    [packName(name)],
  )
  await assert.rejects(
    verifyBackup(open, point(1)),
    new RegExp(`pack ${name} is damaged: chunk \\S+ it cannot be decompressed`),
  )
})

test('a manifest outside the namespace of its host, or by a host nobody vouches for, is a forgery', async () => {
  await using temporary = await temporaryDatastore()
  await addHost(temporary, 'web')
  await backUp(await asHost(temporary), point(0, '100', 'web'), { scsi0: disk('r') })
  const folder = join(temporary.path, 'backups')
  const path = join(folder, 'web/vm/100', (await readdir(join(folder, 'web/vm/100')))[0] ?? '')
  const open = await temporary.reopen()
  type Value = { writer: { namespace: string; public: string } }
  const { value } = JSON.parse(await readFile(path, 'utf8')) as { value: Value }
  for (const writer of [{ namespace: '' }, { public: randomBytes(32).toString('base64') }]) {
    const forged = JSON.stringify({ ...value, writer: { ...value.writer, ...writer } })
    const sha256 = createHash('sha256').update(forged).digest('hex')
    await writeFile(path, `{"sha256":"${sha256}","value":${forged}}\n`)
    await assert.rejects(open.open(point(0, '100', 'web')), /not signed by this datastore/)
    assert.match((await open.datastore.list())[0]?.damage ?? '', /not signed by this datastore/)
  }
})

test('the reader that knows the description alone restores what a host that only adds has made', async () => {
  await using temporary = await temporaryDatastore()
  await addHost(temporary, 'web')
  const content = disk('rt.r')
  await backUp(await asHost(temporary), point(0, '100', 'web'), { scsi0: content })
  const out = await mkdtemp(join(tmpdir(), 'hako-rescued-'))
  try {
    const program = join(import.meta.dirname, '../../docs/formats/read-datastore-v2.ts')
    const read = (...args: readonly string[]) =>
      spawnSync(process.execPath, [program, temporary.path, ...args], {
        input: `${printRecoveryKey(Buffer.alloc(32, 9))}\n`,
      })
    const [name = ''] = read('list').stdout.toString().trim().split('\n')
    const { status, stderr } = read('restore', name, 'scsi0', join(out, 'scsi0'))
    assert.equal(status, 0, stderr.toString())
    assert.ok((await readFile(join(out, 'scsi0'))).equals(content))
  } finally {
    await rm(out, { recursive: true })
  }
})

async function filesBelow(path: string): Promise<string[]> {
  const entries = await readdir(join(path, 'packs'), { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}
