/** A list that another process has made before is made again without opening what has not changed. */
import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { systemRandom } from '#base/random.ts'
import { point, temporaryDatastore, type TemporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import type { OpenDatastore } from '../datastore.ts'
import { type KeptListNeeds, readKeptList, writeKeptList } from './kept-list.ts'
import { Keyring, newSecrets } from '../keys/keyring.ts'
import { listOpened } from './listing.ts'
import { manifestName, printManifest } from './manifest.ts'

const body = { disks: [], trees: [], files: [], facts: { name: 'web-server' } }

suite('what a list has opened', () => {
  let [store, open]: [TemporaryDatastore?, OpenDatastore?] = []
  let needs: KeptListNeeds
  let id: string
  const put = async (number: number) => {
    assert.ok(open)
    const head = { point: point(number), pointInTime: '2026-11-20T10:00:00.000Z', finished: 1_795_000_000 }
    const text = printManifest(open.keyring, systemRandom, head, body)
    await open.datastore.place.put(manifestName(head.point), Buffer.from(text))
  }
  /** As a process of its own: how many are listed, how many it had to open, and what is damaged. */
  const list = async () => {
    assert.ok(open)
    const seen = await readKeptList(id, needs)
    const listed = await listOpened(open.datastore, open.keyring, { seen })
    const opened = seen.unkept
    const damaged = listed.filter(({ damage }) => damage !== undefined).length
    assert.ok(listed.every(({ manifest, damage }) => damage ?? manifest?.facts.name === 'web-server'))
    return { listed: listed.length, opened, damaged, isKept: await writeKeptList(seen, needs) }
  }
  before(async () => {
    store = await temporaryDatastore()
    open = await store.reopen()
    id = open.datastore.facts.id
    const dir = join(await mkdtemp(join(tmpdir(), 'hako-lists-')), 'lists')
    needs = { dir, keyring: open.keyring, random: systemRandom }
    for (let number = 0; number < 40; number += 1) await put(number)
  })
  after(async () => {
    await rm(join(needs.dir, '..'), { recursive: true })
    await store?.[Symbol.asyncDispose]()
  })

  test('is not opened again by the next process, but for what is new, was changed, or is gone', async () => {
    assert.ok(store && open)
    assert.deepEqual(await list(), { listed: 40, opened: 40, damaged: 0, isKept: true })
    assert.deepEqual(await list(), { listed: 40, opened: 0, damaged: 0, isKept: false })
    await put(40)
    assert.deepEqual(await list(), { listed: 41, opened: 1, damaged: 0, isKept: false })
    await open.datastore.remove(point(40))
    const path = join(store.path, manifestName(point(3)))
    const text = await readFile(path, 'utf8')
    await writeFile(path, text.replace('"finished":1795', '"finished":1794'))
    assert.deepEqual(await list(), { listed: 40, opened: 0, damaged: 1, isKept: false })
    await writeFile(path, text)
    assert.deepEqual(await list(), { listed: 40, opened: 1, damaged: 0, isKept: false })
  })

  test('says nothing to those without the keys, and is taken from nobody else', async () => {
    const path = join(needs.dir, id)
    const kept = await readFile(path)
    assert.ok(!kept.includes('web-server'))
    assert.equal((await readKeptList('another', needs)).entries().length, 0)
    const others = { ...needs, keyring: new Keyring(newSecrets(systemRandom)) }
    assert.equal((await readKeptList(id, others)).entries().length, 0)
    for (const at of [0, 20, kept.length - 1]) {
      const changed = Buffer.from(kept)
      changed.writeUInt8(changed.readUInt8(at) ^ 1, at)
      await writeFile(path, changed)
      assert.deepEqual(await list(), { listed: 40, opened: 40, damaged: 0, isKept: true })
    }
    await writeFile(path, 'short')
    assert.equal((await list()).opened, 40)
    assert.deepEqual(await readdir(needs.dir), [id])
  })

  test('need not be kept: a list is made all the same', async () => {
    const dir = join(needs.dir, id, 'below-a-file')
    const seen = await readKeptList(id, { ...needs, dir })
    assert.ok(open)
    assert.equal((await listOpened(open.datastore, open.keyring, { seen })).length, 40)
    assert.equal(await writeKeptList(seen, { ...needs, dir }), false)
  })
})
