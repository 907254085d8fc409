/** The stand-alone reader, which knows the description of the format alone, after all that happens to a datastore. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import { disk, filesBelow } from '../../../test/fixtures/datastore.ts'
import { backUp, point, recovery, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { FolderPlace } from '../places/folder-place.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { withSecrets } from '../keys/key-file.ts'
import { rotated } from '../keys/keyring.ts'
import { printPoint } from '../point.ts'
import { manifestName } from '../points/manifest.ts'
import { repairIndex } from '../tidy/repair.ts'
import { syncDatastore } from './sync.ts'

const chunk = 128 * KiB
const program = join(import.meta.dirname, '../../../docs/formats/read-datastore-v2.ts')
const reader = (...args: readonly string[]) =>
  spawnSync(process.execPath, [program, ...args], { input: `${recovery.text}\n`, encoding: 'utf8' })

test('the reader restores also after rotation, rewritten packs, a new index, and from a copy; deltas in its way', async () => {
  await using temporary = await temporaryDatastore()
  const content = Buffer.alloc(2_000 * chunk)
  for (let at = 0; at < 2_000; at += 4) content.set(randomBytes(64), at * chunk)
  await backUp(await temporary.reopen(), point(0), { scsi0: Buffer.concat([content, disk('rrrrrrrrrrrr')]) })
  const admin = await temporary.reopen()
  await admin.datastore.putKeyFile(
    withSecrets(systemRandom, admin.unlocked, rotated(admin.keyring.secrets, systemRandom)),
  )
  for (let time = 1; time < 4; time += 1) {
    content.set(randomBytes(64), time * 37 * chunk)
    await backUp(await temporary.reopen(), point(time), { scsi0: content })
  }
  const open = await temporary.reopen()
  await open.datastore.remove(point(0))
  assert.ok((await collectGarbage(open)).rewrittenPacks > 0)
  await rm(join(temporary.path, 'segments'), { recursive: true })
  await repairIndex(await temporary.reopen())
  const out = await mkdtemp(join(tmpdir(), 'hako-rescued-'))
  try {
    const copy = join(out, 'copy')
    await using place = new FolderPlace(copy, systemRandom)
    await place.prepare()
    await syncDatastore(open.datastore, place, open.datastore.deps)
    const beside = join(out, 'beside')
    await machine().run(['cp', '--archive', temporary.path, beside])
    for (const from of [temporary.path, copy, beside]) {
      const target = join(out, basename(from))
      const { status, stderr } = reader(from, 'restore', printPoint(point(3)), 'scsi0', `${target}.raw`)
      assert.equal(status, 0, stderr)
      assert.ok((await readFile(`${target}.raw`)).equals(content), from)
    }
  } finally {
    await rm(out, { recursive: true })
  }
})

test('the reader restores everything at once, names what is damaged, and leaves no half of it', async () => {
  await using temporary = await temporaryDatastore()
  const [first, second] = [disk('rr'), disk('rrr')]
  await backUp(await temporary.reopen(), point(0), { scsi0: first })
  const before = new Set(await filesBelow(join(temporary.path, 'packs')))
  await backUp(await temporary.reopen(), point(1, '101', 'office'), { scsi0: second, scsi1: first })
  await backUp(await temporary.reopen(), point(2), { scsi0: first })
  const out = await mkdtemp(join(tmpdir(), 'hako-rescued-'))
  try {
    const all = join(out, 'all')
    assert.equal(reader(temporary.path, 'restore-all', all).status, 0)
    for (const [name, content] of [
      [`${printPoint(point(0))}/scsi0`, first],
      [`${printPoint(point(1, '101', 'office'))}/scsi0`, second],
    ] as const)
      // prettier-ignore
      assert.ok((await readFile(join(all, name))).equals(content), name)
    assert.equal((await filesBelow(all)).length, 7)
    const sizes = new Map<string, Buffer>()
    for (const pack of await filesBelow(join(temporary.path, 'packs')))
      if (!before.has(pack)) sizes.set(pack, await readFile(join(temporary.path, 'packs', pack)))
    const [[pack, bytes] = ['', Buffer.alloc(0)]] = [...sizes].toSorted(([, a], [, b]) => b.length - a.length)
    bytes.writeUInt8(bytes.readUInt8(60) ^ 1, 60)
    await writeFile(join(temporary.path, 'packs', pack), bytes)
    await writeFile(join(temporary.path, manifestName(point(2))), 'torn')
    const rest = reader(temporary.path, 'restore-all', join(out, 'rest'))
    assert.equal(rest.status, 1)
    const lost = [`scsi0 of ${printPoint(point(1, '101', 'office'))}`, printPoint(point(2))]
    for (const name of lost) assert.match(rest.stderr, new RegExp(`left out: ${name}: .*is damaged`))
    assert.equal(rest.stderr.match(/left out/g)?.length, 2)
    const kept = [
      `${printPoint(point(0))}/guest.conf`,
      `${printPoint(point(0))}/scsi0`,
      `${printPoint(point(1, '101', 'office'))}/guest.conf`,
      `${printPoint(point(1, '101', 'office'))}/scsi1`,
    ]
    assert.deepEqual((await filesBelow(join(out, 'rest'))).toSorted(), kept.toSorted())
  } finally {
    await rm(out, { recursive: true })
  }
})

test('neither we nor the reader take a manifest for one of another name', async () => {
  await using temporary = await temporaryDatastore()
  await backUp(await temporary.reopen(), point(0), { scsi0: disk('r') })
  const [from, to] = [manifestName(point(0)), manifestName(point(1))].map((name) => join(temporary.path, name))
  await copyFile(from ?? '', to ?? '')
  const { status, stderr } = reader(temporary.path, 'show', printPoint(point(1)))
  assert.equal(status, 1)
  assert.match(stderr, /the manifest is that of .*vm\/100\//)
  await assert.rejects((await temporary.reopen()).body(point(1)), (fault) => isFault(fault, 'damaged'))
})
