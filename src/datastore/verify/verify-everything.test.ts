import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdtemp, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { machine } from '#host/exec.ts'
import { filesBelow } from '../../../test/fixtures/datastore.ts'
import { backUp, makeDatastore, point, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { packName } from '../packs/pack.ts'
import { printPoint } from '../point.ts'
import { type Verdict, verifyEverything } from './verify-everything.ts'

const chunk = 128 * KiB

async function verdicts(checks: AsyncIterable<Verdict>): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for await (const { point: name, found: whole, damage } of checks) {
    found[name ? printPoint(name) : 'all'] = whole ? `${whole.chunks} chunks, ${whole.bytes} bytes` : (damage ?? '')
  }
  return found
}

test('a check of everything finds each backup whole, and a turned bit only in those that need it', async () => {
  await using temporary = await temporaryDatastore()
  const shared = randomBytes(3 * chunk)
  const [own, other] = [randomBytes(2 * chunk + 1_000), randomBytes(chunk)]
  const open = await temporary.reopen()
  await backUp(open, point(0), { scsi0: shared })
  await backUp(open, point(1), { scsi0: Buffer.concat([shared, Buffer.alloc(chunk), own]) })
  await backUp(open, point(2), { scsi0: Buffer.concat([shared, other]) })
  const config = 'name: one\n'.length
  const [first, second, third] = [0, 1, 2].map((time) => printPoint(point(time))) as [string, string, string]
  assert.deepEqual(await verdicts(verifyEverything(await temporary.reopen())), {
    [first]: `3 chunks, ${3 * chunk + config} bytes`,
    [second]: `6 chunks, ${5 * chunk + 1_000 + config} bytes`,
    [third]: `4 chunks, ${4 * chunk + config} bytes`,
  })

  const id = open.keyring.idOf(0, own.subarray(chunk, 2 * chunk))
  const place = await open.index.find(id)
  assert.ok(place)
  const path = join(temporary.path, packName(place.pack))
  const bytes = await readFile(path)
  const at = place.offset + 100
  bytes[at] = (bytes[at] ?? 0) ^ 4
  await writeFile(path, bytes)

  const found = await verdicts(verifyEverything(await temporary.reopen()))
  assert.match(found['all'] ?? '', new RegExp(`pack ${place.pack} is damaged`))
  assert.match(found[second] ?? '', new RegExp(`pack ${place.pack} is damaged: chunk ${id.toString('hex', 0, 16)}`))
  for (const name of [first, third]) assert.match(found[name] ?? '', /chunks/)
  const marks = await open.datastore.marks(point(1))
  assert.match(marks.damage ?? '', /is damaged/)

  // The next backup does not rely on it, and what needs it is whole again.
  await backUp(await temporary.reopen(), point(3), { scsi0: Buffer.concat([shared, Buffer.alloc(chunk), own]) })
  const after = await verdicts(verifyEverything(await temporary.reopen()))
  for (const name of [first, second, third, printPoint(point(3))]) assert.match(after[name] ?? '', /chunks/)
})

test('a check of everything leaves the page cache to others', async () => {
  await using temporary = await makeDatastore(await mkdtemp('/var/tmp/hako-sealed-'))
  await backUp(await temporary.reopen(), point(0), { scsi0: randomBytes(16 * MiB) })
  const packs = (await filesBelow(temporary.path)).filter((name) => name.startsWith('packs/'))
  const files = packs.map((name) => join(temporary.path, name))
  const host = machine()
  const cachedBytes = async () => {
    const { stdout } = await host.run(['fincore', '--noheadings', '--bytes', '--output', 'RES', ...files])
    return stdout.split('\n').reduce((sum, bytes) => sum + Number(bytes), 0)
  }
  for (const file of files) await host.run(['dd', `if=${file}`, 'iflag=nocache', 'count=0', 'status=none'])
  assert.ok((await cachedBytes()) < MiB, 'the packs can be put out of the cache')
  assert.equal(Object.keys(await verdicts(verifyEverything(await temporary.reopen()))).length, 1)
  const bytes = await cachedBytes()
  assert.ok(bytes < 2 * MiB, `${bytes} bytes of 16 MiB are in the page cache`)
})

test('a turned bit anywhere in a pack is found, under a seal or not', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  await backUp(open, point(0), { scsi0: Buffer.concat([randomBytes(chunk), Buffer.alloc(chunk, 'text')]) })
  const packs = (await filesBelow(temporary.path)).filter((name) => name.startsWith('packs/'))
  assert.equal(packs.length, 2, 'one of content, one of maps')
  for (const name of packs) {
    const path = join(temporary.path, name)
    const whole = await readFile(path)
    const entries = Number(whole.readUInt32LE(whole.length - 16))
    const table = whole.length - 24 - 48 * entries - 16
    // All that is under no seal, both ends of the table and of the chunks, and some in between.
    const header = Array.from({ length: 17 }, (_, at) => at)
    const end = Array.from({ length: 25 }, (_, at) => whole.length - 1 - at)
    const others = [47, 48, table - 1, table, table + 40, randomInt(48, table)]
    for (const at of [...header, ...others, ...end]) {
      const bit = randomInt(8)
      const changed = Buffer.from(whole)
      changed[at] = (changed[at] ?? 0) ^ (1 << bit)
      await writeFile(path, changed)
      const { all = '' } = await verdicts(verifyEverything(open))
      assert.match(all, new RegExp(`pack ${name.slice(-64)} is damaged`), `bit ${bit} of byte ${at} of ${name}`)
    }
    await writeFile(path, whole)
  }
  const found = await verdicts(verifyEverything(await temporary.reopen()))
  assert.deepEqual(Object.keys(found), [printPoint(point(0))])
  assert.match(found[printPoint(point(0))] ?? '', /chunks/)
})

test('a pack under the name of another is found, though all in it is whole', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  await backUp(open, point(0), { scsi0: randomBytes(3 * chunk) })
  await backUp(open, point(1, '101'), { scsi0: Buffer.concat([randomBytes(100), Buffer.alloc(chunk)]) })
  const contents: string[] = []
  for (const content of (await filesBelow(temporary.path)).filter((name) => name.startsWith('packs/'))) {
    const path = join(temporary.path, content)
    if (((await readFile(path)).readUInt32LE(12) & 1) === 0) contents.push(path)
  }
  const [one = '', other = ''] = contents
  assert.equal(contents.length, 2)
  await rename(one, `${one}.tmp`)
  await rename(other, one)
  await rename(`${one}.tmp`, other)
  const found = await verdicts(verifyEverything(await temporary.reopen()))
  for (const name of [printPoint(point(0)), printPoint(point(1, '101'))]) {
    assert.match(
      found[name] ?? '',
      /[0-9a-f]{64}.* ends \d+ bytes early|pack [0-9a-f]{64} is damaged: .* is not where the index says/,
    )
  }
})

test('a disk that is read again is known by its prints, and what changed is stored', async () => {
  await using temporary = await temporaryDatastore()
  const content = Buffer.concat([randomBytes(5 * chunk), Buffer.alloc(2 * chunk), randomBytes(chunk + 77)])
  const disks = async (time: number) => {
    const body = await backUp(await temporary.reopen(), point(time), { scsi0: content })
    const [disk] = body.disks
    assert.ok(disk?.prints && disk.prints.length > 0)
    return disk
  }
  const first = await disks(0)
  const same = await disks(1)
  assert.deepEqual([same.newChunks, same.root, same.prints], [0, first.root, first.prints])
  content[3 * chunk + 5] = (content[3 * chunk + 5] ?? 0) ^ 1
  content.fill(0, 0, chunk)
  const changed = await disks(2)
  assert.deepEqual([changed.newChunks, changed.chunks], [1, first.chunks - 1])
  const found = await verdicts(verifyEverything(await temporary.reopen()))
  assert.equal(Object.values(found).filter((text) => /chunks/.test(text)).length, 3)
})
