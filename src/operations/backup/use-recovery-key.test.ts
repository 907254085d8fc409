/** Who has the recovery key on paper, and nothing else, gets a node its datastores back. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { letIn } from '#backup/node-datastore.ts'
import { NodeKeys } from '#backup/node-keys.ts'
import { BackupService } from '#backup/service.ts'
import { openDatastore } from '#datastore/datastore.ts'
import { FolderPlace } from '#datastore/places/folder-place.ts'
import { printRecoveryKey } from '#datastore/keys/slot.ts'
import type { Services } from '#services.ts'
import { deps, disk, filesBelow, memorySource } from '../../../test/fixtures/datastore.ts'
import { openedByNode, useRecoveryKey } from './use-recovery-key.ts'

const another = printRecoveryKey(Buffer.alloc(32, 3))
const locked = (error: unknown) => isFault(error, 'unavailable') && /hako recovery-key use/.test(error.remedy ?? '')

/** With two storages for backups, and a recovery key somebody has on paper. */
async function node() {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-key-'))
  const keys = new NodeKeys({ settings: { stateDir, node: 'lab' }, ...deps })
  const pathOf = async (name: string) => join(stateDir, name)
  const backup = new BackupService({ ...deps, keys, storage: { datastorePath: pathOf } })
  const { key: paper } = await keys.create({ replaces: false })
  await keys.confirm(paper)
  const list = async () => ['one', 'two'].map((name) => ({ name, content: ['backup'] }))
  const services = { nodeKeys: keys, backup, storage: { list } } as unknown as Services
  return {
    stateDir,
    keys,
    services,
    paper,
    own: join(stateDir, 'keys/datastore.key'),
    use: (text: string, replaces = false) => useRecoveryKey(services, text, { replaces }),
    async backUp(storage = 'one') {
      const begun = await backup.begin(storage, { vmid: asVmid(100) })
      await using writer = begun.writer
      await writer.addDisk('scsi0', memorySource(disk('rzr.')))
      await writer.commit({ facts: { name: 'n100' } })
      return begun.volid
    },
    check: (volid: string) => backup.verify(asVolumeId(volid)),
    /** Everything stored, with the moment it was written. */
    async packs(storage = 'one') {
      const folder = join(stateDir, storage, 'packs')
      return Promise.all(
        (await filesBelow(folder)).map(async (name) => {
          const { ino, mtimeMs } = await stat(join(folder, name))
          return [name, ino, mtimeMs]
        }),
      )
    },
    async opensBy(key: Buffer, storage = 'one') {
      await using place = new FolderPlace(join(stateDir, storage), deps.random)
      return (await openDatastore(place, deps)).keys({ kind: 'key', key })
    },
    [Symbol.asyncDispose]: () => rm(stateDir, { recursive: true, force: true }),
  }
}

suite('the recovery key of a node', () => {
  test('gives a node that lost its key another one; the lost one opens nothing more, and no pack is written anew', async () => {
    await using it = await node()
    const [volid, other] = [await it.backUp('one'), await it.backUp('two')]
    const [lost, packs] = [await readFile(it.own), await it.packs()]
    await it.keys.forgetOwn()
    await assert.rejects(it.check(volid), locked)
    assert.deepEqual(
      (await openedByNode(it.services)).storages.map(({ opens }) => opens),
      [false, false],
    )
    await assert.rejects(
      it.use(another),
      (error) => isFault(error, 'invalid') && /not the one/.test(error.fields?.key ?? ''),
    )
    await assert.rejects(
      it.use(it.paper.replace(/.$/, (letter) => (letter === 'A' ? 'B' : 'A'))),
      /verification failed/,
    )
    await assert.rejects(it.check(volid), locked)

    const { later, ...used } = await it.use(it.paper)
    assert.deepEqual([used.storages, used.forgotten, later], [['one', 'two'], 2, []])
    await it.check(volid)
    await it.check(other)
    await assert.rejects(it.opensBy(lost), /does not open/)
    assert.deepEqual(await it.packs(), packs)
    await it.check(await it.backUp('one'))
    const { storages, fingerprint } = await openedByNode(it.services)
    assert.equal(fingerprint, used.fingerprint)
    assert.deepEqual(
      storages.map((one) => one['key-number']),
      [1, 1],
    )
  })

  test('changes nothing for a node whose key is good, unless another one is wanted', async () => {
    await using it = await node()
    const volid = await it.backUp()
    const before = await readFile(it.own)
    assert.equal((await it.use(it.paper)).forgotten, 0)
    assert.deepEqual(await readFile(it.own), before)
    assert.equal((await it.use(it.paper, true)).forgotten, 1)
    await assert.rejects(it.opensBy(before), /does not open/)
    await it.check(volid)
  })

  test('mends a key file that is damaged', async () => {
    await using it = await node()
    const volid = await it.backUp()
    await writeFile(it.own, 'half of i')
    await assert.rejects(
      it.check(volid),
      (error) => isFault(error, 'damaged') && /recovery-key use/.test(error.remedy ?? ''),
    )
    await it.use(it.paper)
    await it.check(volid)
  })

  test('is taken by a node that has lost all it knew, when it opens something there', async () => {
    await using it = await node()
    const volid = await it.backUp()
    await rm(join(it.stateDir, 'keys'), { recursive: true })
    await assert.rejects(
      it.use(another),
      (error) => isFault(error, 'invalid') && /no datastore/.test(error.fields?.key ?? ''),
    )
    assert.equal((await it.keys.status()).state, 'none')
    await it.use(it.paper)
    assert.equal((await it.keys.status()).state, 'confirmed')
    await it.check(volid)
    await it.check(await it.backUp())
  })

  test('cut off before the new key is in place, the one before still opens, and the same again ends it', async () => {
    await using it = await node()
    const volid = await it.backUp()
    const secret = { kind: 'recovery', text: it.paper } as const
    const orphan = { kind: 'key', key: Buffer.alloc(32, 5) } as const
    await it.services.backup.onDatastore('one', (datastore, needs) => letIn(datastore, secret, orphan, needs))
    await it.check(volid)
    await it.opensBy(orphan.key)
    await it.use(it.paper, true)
    await assert.rejects(it.opensBy(orphan.key), /does not open/)
    await it.check(volid)
  })

  test('a storage that is away follows when the key is shown again, and keeps nothing from the others', async () => {
    await using it = await node()
    const [volid, other] = [await it.backUp('one'), await it.backUp('two')]
    await it.keys.forgetOwn()
    const format = join(it.stateDir, 'two/format')
    const good = await readFile(format)
    await writeFile(format, 'not there')
    const first = await it.use(it.paper)
    assert.deepEqual([first.storages, first.later.map(({ storage }) => storage)], [['one'], ['two']])
    await it.check(volid)
    await writeFile(format, good)
    await assert.rejects(it.check(other), locked)
    assert.deepEqual((await it.use(it.paper)).storages, ['one', 'two'])
    await it.check(other)
  })

  test('nobody takes the key of a node away before somebody has the recovery key', async () => {
    await using it = await node()
    await it.keys.own()
    await rm(join(it.stateDir, 'keys/recovery-key'))
    await assert.rejects(it.keys.forgetOwn(), (error) => isFault(error, 'conflict'))
    assert.equal((await readFile(it.own)).length, 32)
  })
})
