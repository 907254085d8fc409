/** Whoever may only read a datastore has the same verdict as its owner, and hears that none of it is written down. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { type Fault, isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { deps, filesBelow } from '../../../test/fixtures/datastore.ts'
import { placeServer } from '../../../test/fixtures/place-server.ts'
import { readOnlyMount } from '../../../test/fixtures/read-only-mount.ts'
import { backUp, makeDatastoreIn, point, secret, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { openDatastore, type OpenDatastore } from '../datastore.ts'
import { FolderPlace } from '../places/folder-place.ts'
import { HttpsPlace } from '../places/https/place.ts'
import { printPoint } from '../point.ts'
import { verifyEverything } from './verify-everything.ts'
import { verifyBackup, verifyPacks } from './verify.ts'

const chunk = 128 * KiB

/** Two backups. */
async function fill(open: OpenDatastore): Promise<void> {
  const shared = randomBytes(3 * chunk)
  await backUp(open, point(0), { scsi0: shared })
  await backUp(open, point(1), { scsi0: Buffer.concat([shared, randomBytes(chunk)]) })
}

interface Looked {
  readonly verdicts: Readonly<Record<string, string>>
  readonly unwritten: readonly Fault[]
}

async function looked(open: OpenDatastore): Promise<Looked> {
  const unwritten: Fault[] = []
  const verdicts: Record<string, string> = {}
  const onUnwritten = (fault: Fault) => void unwritten.push(fault)
  for await (const { point: name, damage } of verifyEverything(open, { onUnwritten }))
    verdicts[name ? printPoint(name) : 'all'] = damage ?? 'whole'
  return { verdicts, unwritten }
}

const [first, second] = [printPoint(point(0)), printPoint(point(1))]

suite('a datastore on a file system that is read-only', () => {
  async function mounted(path: string): Promise<{ readonly place: FolderPlace; readonly open: OpenDatastore }> {
    const place = new FolderPlace(path, systemRandom)
    return { place, open: await (await openDatastore(place, deps)).unlock(secret) }
  }

  test('says so of whatever is put there, with the path', async () => {
    await using temporary = await temporaryDatastore()
    await using mount = await readOnlyMount(temporary.path)
    await using place = new FolderPlace(mount.path, systemRandom)
    const isTold = (error: unknown) =>
      isFault(error, 'denied') && /'.*\/_\/x' is on a .* read-only$/.test(error.message)
    await assert.rejects(place.replace('marks/_/x', Buffer.alloc(1)), isTold)
    await assert.rejects(place.put('suspects/_/x', Buffer.alloc(1)), isTold)
  })

  test('is found whole, backup by backup, all at once and pack by pack', async () => {
    await using temporary = await temporaryDatastore()
    await fill(await temporary.reopen())
    await using mount = await readOnlyMount(temporary.path)
    const { open, place } = await mounted(mount.path)
    await using _ = place
    const { verdicts, unwritten } = await looked(open)
    assert.deepEqual(verdicts, { [first]: 'whole', [second]: 'whole' })
    assert.match(unwritten[0]?.message ?? '', /read-only/)
    const told: string[] = []
    const onUnwritten = ({ message }: Fault) => void told.push(message)
    await verifyBackup(open, point(0), { onUnwritten })
    assert.deepEqual(told, [
      `'${mount.path}/marks/_/vm/100/${first.split('/').at(-1)}.found' is on a file system that is read-only`,
    ])
    assert.deepEqual((await verifyPacks(open.datastore, { onUnwritten })).damaged, [])
  })

  test('is found damaged where it is', async () => {
    await using temporary = await temporaryDatastore()
    await fill(await temporary.reopen())
    for (const pack of (await filesBelow(temporary.path)).filter((name) => name.startsWith('packs/'))) {
      const path = join(temporary.path, pack)
      const bytes = await readFile(path)
      bytes[1_000] = (bytes[1_000] ?? 0) ^ 1
      if (bytes.length > 2 * chunk) await writeFile(path, bytes)
    }
    await using mount = await readOnlyMount(temporary.path)
    const { open, place } = await mounted(mount.path)
    await using _ = place
    const { verdicts } = await looked(open)
    for (const name of ['all', first, second]) assert.match(verdicts[name] ?? '', /pack [0-9a-f]{64} is damaged/)
    assert.equal((await verifyPacks(open.datastore)).damaged.length, 1)
  })
})

test('a datastore behind a server is found whole by a token that only reads, and what is not kept is told', async () => {
  await using server = await placeServer()
  await using owned = await makeDatastoreIn({ https: server.reach('one') })
  await fill(await owned.reopen())
  await using place = await HttpsPlace.open(server.reach('one', ['read']), deps)
  const open = await (await openDatastore(place, deps)).unlock(secret)
  const { verdicts, unwritten } = await looked(open)
  assert.deepEqual(verdicts, { [first]: 'whole', [second]: 'whole' })
  assert.match(unwritten[0]?.message ?? '', /removes nothing: 'suspects\//)
  await verifyBackup(open, point(1))
  assert.deepEqual((await verifyPacks(open.datastore)).damaged, [])
})
