import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { KiB } from '#base/bytes.ts'
import { backUp, point, temporaryDatastore } from '../../test/fixtures/sealed-datastore.ts'
import { packName } from './pack.ts'
import { printPoint } from './point.ts'
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
