/** What is damaged or lost comes back from a copy, and nothing that does not prove itself. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { deps, disk, filesBelow } from '../../../test/fixtures/datastore.ts'
import { openBelow } from '../../../test/fixtures/open-below.ts'
import { backUp, point, restored, secret, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { type Datastore, openDatastore } from '../datastore.ts'
import { keyFileName, withSecrets } from '../keys/key-file.ts'
import { rotated } from '../keys/keyring.ts'
import { FolderPlace } from '../places/folder-place.ts'
import { manifestName } from '../points/manifest.ts'
import { marksName } from '../points/marks.ts'
import { verifyDatastore } from '../verify/verify-datastore.ts'
import { verifyEverything } from '../verify/verify-everything.ts'
import { mendOpening } from './opening.ts'
import { refetch } from './refetch.ts'
import { syncDatastore } from './sync.ts'

const contents = [disk('rrt.'), disk('rr'), disk('rrr')]

interface Pair extends AsyncDisposable {
  readonly path: string
  readonly copyPath: string
  readonly copy: Datastore
  readonly place: FolderPlace
  readonly reopen: Awaited<ReturnType<typeof temporaryDatastore>>['reopen']
  readonly heal: () => Promise<readonly string[]>
}

/** Three backups with notes, and a copy of them. */
async function pair(): Promise<Pair> {
  const made = await temporaryDatastore()
  for (const [time, content] of contents.entries()) {
    const open = await made.reopen()
    await backUp(open, point(time), { scsi0: content })
    await open.datastore.mark(point(time), { notes: `number ${time}` })
  }
  const { datastore, unlocked, keyring } = await made.reopen()
  const file = withSecrets(systemRandom, unlocked, rotated(keyring.secrets, systemRandom))
  await datastore.putKeyFile(file)
  await datastore.removeOldKeyFiles(file.generation)
  const copyPath = await mkdtemp(join(tmpdir(), 'hako-copy-'))
  const [place, there] = [new FolderPlace(made.path, systemRandom), new FolderPlace(copyPath, systemRandom)]
  await there.prepare()
  await syncDatastore(datastore, there, deps)
  const copy = await openDatastore(there, deps)
  return {
    ...made,
    copyPath,
    copy,
    place,
    heal: async () => {
      const opening = await mendOpening(place, copy, { deps })
      const { fetched, missing } = await refetch(await openDatastore(place, deps), copy)
      assert.deepEqual(missing, [])
      return [...opening, ...fetched]
    },
    async [Symbol.asyncDispose]() {
      for (const one of [place, there]) await one[Symbol.asyncDispose]()
      await rm(copyPath, { recursive: true })
      await made[Symbol.asyncDispose]()
    },
  }
}

async function flip(path: string): Promise<void> {
  const bytes = await readFile(path)
  const at = Math.floor(bytes.length / 2)
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
  await writeFile(path, bytes)
}

const areWhole = async ({ reopen }: Pick<Pair, 'reopen'>) => {
  for (const [time, content] of contents.entries()) {
    assert.ok((await restored(await reopen(), point(time), 'scsi0')).equals(content))
  }
}

test('what opens a datastore comes back from a copy, whether it is damaged or gone', async () => {
  await using both = await pair()
  const [format, keys] = ['format', keyFileName(2)]
  const ways: Readonly<Record<string, (path: string) => Promise<void>>> = { flip, gone: (path) => rm(path) }
  for (const [way, damage] of Object.entries(ways)) {
    for (const files of [[format], [keys], [format, keys]]) {
      for (const file of files) await damage(join(both.path, file))
      await assert.rejects(both.reopen(), `${way} ${files.join()}`)
      assert.deepEqual(await both.heal(), files, `${way} ${files.join()}`)
      await areWhole(both)
    }
  }
  assert.deepEqual(await both.heal(), [])
  await verifyDatastore(await both.reopen())
})

test('nothing gets in that is of another datastore, or proves nothing', async () => {
  await using both = await pair()
  await using other = await temporaryDatastore()
  await rm(join(both.path, 'format'))
  const foreign = (await other.reopen()).datastore
  await assert.rejects(mendOpening(both.place, foreign, { deps }), /nothing in '\S+' proves that '\S+' is a copy of it/)
  // Nor into an empty place, which is no datastore of which something is lost.
  await using empty = new FolderPlace(join(other.path, 'tmp', 'new'), systemRandom)
  await empty.prepare()
  await assert.rejects(mendOpening(empty, both.copy, { deps }), (fault) => isFault(fault, 'conflict'))
  assert.deepEqual(await both.heal(), ['format'])
  // A manifest and a key file of the copy that are damaged as well, or somebody else's.
  await backUp(await other.reopen(), point(0), { scsi0: disk('r') })
  const foreignManifest = await readFile(join(other.path, manifestName(point(0))))
  for (const damaged of ['flipped', 'foreign'] as const) {
    const name = manifestName(point(0))
    await flip(join(both.path, name))
    if (damaged === 'flipped') await flip(join(both.copyPath, name))
    else await writeFile(join(both.copyPath, name), foreignManifest)
    const { fetched, missing } = await refetch(await openDatastore(both.place, deps), both.copy)
    assert.deepEqual([fetched, missing], [[], [name]], damaged)
    await flip(join(both.path, name))
    await writeFile(join(both.copyPath, name), await readFile(join(both.path, name)))
  }
  await areWhole(both)
})

test('who dies where a damaged manifest has to go before the whole one is put leaves word that it is lost', async () => {
  await using both = await pair()
  const name = manifestName(point(1))
  await flip(join(both.path, name))
  const dying = Object.assign(new FolderPlace(both.path, systemRandom), {
    lock: { retainSeconds: 1, until: async () => undefined, extend: async () => {} },
    put: async (what: string, content: Buffer) => {
      if (what === name) throw new Error('killed')
      return both.place.put(what, content)
    },
  })
  await using _dying = dying
  await assert.rejects(refetch(await openDatastore(dying, deps), both.copy), /killed/)
  const { datastore, unlocked } = await both.reopen()
  const { fetched, missing } = await refetch(datastore, both.copy, { keys: unlocked })
  assert.deepEqual([fetched, missing], [[name], []])
  await areWhole(both)
})

test('manifests and marks that are damaged come back; what was removed stays so', async () => {
  await using both = await pair()
  const removed = point(2)
  await (await both.reopen()).datastore.remove(removed)
  await flip(join(both.path, manifestName(point(0))))
  const open = await both.reopen()
  const verdicts = await Array.fromAsync(verifyEverything(open))
  const damage = verdicts.filter((one) => one.damage !== undefined)
  assert.deepEqual(
    damage.map((one) => one.point?.time),
    [point(0).time],
  )
  assert.match(damage[0]?.damage ?? '', /the manifest of backup vm\/100\/\S+ is damaged/)
  await flip(join(both.path, marksName(point(1))))
  assert.deepEqual(await both.heal(), [manifestName(point(0)), marksName(point(1))])
  const { datastore } = await both.reopen()
  assert.equal((await datastore.points()).length, 2)
  // They may have said so. What the check found lies beside them.
  const { verified, ...said } = await datastore.marks(point(1))
  assert.ok(verified)
  assert.deepEqual(said, { notes: 'number 1', protected: true })
  for (const time of [0, 1]) {
    assert.ok((await restored(await both.reopen(), point(time), 'scsi0')).equals(contents[time] ?? Buffer.alloc(0)))
  }
})

test('a manifest that is gone comes back with what was collected because of it, by who has the keys', async () => {
  await using both = await pair()
  const name = manifestName(point(0))
  await rm(join(both.path, name))
  assert.ok((await collectGarbage(await both.reopen())).removedChunks > 0)
  const open = await both.reopen()
  assert.deepEqual((await refetch(open.datastore, both.copy)).missing, [name])
  const { fetched, missing } = await refetch(open.datastore, both.copy, { keys: open.unlocked })
  assert.deepEqual([fetched, missing], [[name], []])
  await areWhole(both)
  await verifyDatastore(await both.reopen())
  const { condemnedChunks } = await collectGarbage(await both.reopen())
  assert.equal(condemnedChunks, 0)
})

test('a backup whose chunks are damaged in the copy stays lost, and nothing of what was fetched of it stays open', async () => {
  await using both = await pair()
  const files = async () => (await filesBelow(join(both.copyPath, 'packs'))).toSorted()
  const before = await files()
  const [known, lost] = [disk('rr'), disk('rr')]
  await backUp(await both.reopen(), point(8), { scsi0: known })
  await backUp(await both.reopen(), point(9), { scsi0: Buffer.concat([known, lost]) })
  const { datastore } = await both.reopen()
  await datastore.mark(point(9), { notes: 'number 9' })
  await syncDatastore(datastore, both.copy.place, deps)
  await datastore.remove(point(8))
  await rm(join(both.path, manifestName(point(9))))
  assert.ok((await collectGarbage(await both.reopen())).removedChunks > 0)
  // Of one pack something has come before the damage in the other is met.
  const added = (await files()).filter((name) => !before.includes(name))
  const content: string[] = []
  for (const name of added) {
    const bytes = await readFile(join(both.copyPath, 'packs', name))
    if ((bytes.readUInt32LE(12) & 1) === 0) content.push(name)
  }
  assert.equal(content.length, 2)
  for (const name of content) {
    await flip(join(both.copyPath, 'packs', name))
    const open = await both.reopen()
    const { missing } = await refetch(open.datastore, both.copy, { keys: open.unlocked })
    assert.deepEqual(missing, [manifestName(point(9))])
    assert.deepEqual(await filesBelow(join(both.path, 'tmp')), [])
    assert.deepEqual(openBelow(join(both.path, 'tmp')), [])
    await flip(join(both.copyPath, 'packs', name))
  }
})

test('a manifest somebody else put is named, and stops neither a look at everything nor a collection', async () => {
  await using both = await pair()
  await using other = await temporaryDatastore()
  await backUp(await other.reopen(), point(7), { scsi0: disk('r') })
  await cp(join(other.path, manifestName(point(7))), join(both.path, manifestName(point(7))))
  const open = await both.reopen()
  const verdicts = await Array.fromAsync(verifyEverything(open))
  assert.deepEqual(
    verdicts.map(({ found, damage }) => (found ? 'whole' : /is not signed by this datastore/.test(damage ?? ''))),
    ['whole', 'whole', 'whole', true],
  )
  await open.datastore.remove(point(1))
  assert.ok((await collectGarbage(open)).removedChunks > 0)
})

test('a copy whose next key file somebody else has put first gets the genuine one all the same', async () => {
  await using both = await pair()
  await writeFile(join(both.copyPath, keyFileName(3)), 'not ours')
  const { datastore, unlocked, keyring } = await both.reopen()
  await datastore.putKeyFile(withSecrets(systemRandom, unlocked, rotated(keyring.secrets, systemRandom)))
  await syncDatastore(datastore, both.copy.place, deps)
  assert.equal((await both.copy.keys(secret)).file.generation, 3)
})

test('hako datastore repair mends a datastore that does not open', async () => {
  await using both = await pair()
  for (const file of ['format', keyFileName(2), manifestName(point(1))]) await flip(join(both.path, file))
  const program = join(import.meta.dirname, '../../cli/main.ts')
  const args = ['datastore', 'repair', both.path, '--from', both.copyPath, '-o', 'json']
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args])
  assert.equal(status, 0, stderr.toString())
  const { fetched } = JSON.parse(stdout.toString()) as { readonly fetched: readonly string[] }
  assert.deepEqual(fetched, ['format', keyFileName(2), manifestName(point(1))])
  await areWhole(both)
})
