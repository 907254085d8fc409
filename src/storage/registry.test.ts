import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import type { Fault } from '#base/fault.ts'
import { openMemoryStore } from '#store/memory.ts'
import type { StorageInput } from './config.ts'
import { StorageRegistry } from './registry.ts'
import { configToWire } from './wire.ts'

const nothingToPrepare = async () => {}
const dir: StorageInput = { storage: 'fast', type: 'dir', path: '/srv/fast' }

async function registry(...inputs: readonly StorageInput[]): Promise<StorageRegistry> {
  const made = new StorageRegistry({ store: openMemoryStore() })
  for (const input of inputs) await made.create(input, nothingToPrepare)
  return made
}

async function fieldsOf(promise: Promise<unknown>): Promise<Readonly<Record<string, string>>> {
  const error = await promise.then(
    () => assert.fail('it was accepted'),
    (reason: unknown) => reason as Fault,
  )
  assert.equal(error.kind, 'invalid', error.message)
  return error.fields ?? {}
}

suite('configured storages', () => {
  test('are told in PVE’s spelling', async () => {
    const storages = await registry({ ...dir, content: 'backup,iso', nodes: 'a b', 'prune-backups': 'keep-last=3' })
    const { digest, ...rest } = configToWire(await storages.get('fast'))
    assert.match(digest, /^[0-9a-f]{40}$/)
    assert.deepEqual(rest, {
      storage: 'fast',
      type: 'dir',
      path: '/srv/fast',
      content: 'iso,backup',
      nodes: 'a,b',
      'prune-backups': 'keep-last=3',
    })
  })

  test('hold disks when nobody says what else, and nothing when told so', async () => {
    const storages = await registry(dir, { ...dir, storage: 'idle', path: '/srv/idle', content: 'none' })
    assert.deepEqual((await storages.get('fast')).content, ['images', 'rootdir'])
    assert.equal(configToWire(await storages.get('idle')).content, 'none')
  })

  test('need good options, and every bad one is named', async () => {
    const storages = await registry()
    const bad = { storage: '1x', type: 'dir', path: 'x', content: 'images,films', nodes: '-', server: '10.0.0.1' }
    const fields = await fieldsOf(storages.create(bad, nothingToPrepare))
    assert.deepEqual(Object.keys(fields).toSorted(), ['content', 'nodes', 'path', 'server', 'storage'])
    assert.deepEqual(Object.keys(await fieldsOf(storages.create({ storage: 'x1', type: 'dir' }, nothingToPrepare))), [
      'path',
    ])
    const fields2 = await fieldsOf(storages.create({ storage: 'x1', type: 'nfs' }, nothingToPrepare))
    assert.match(fields2.type ?? '', /'nfs' does not have a value in the enumeration/)
    const fields3 = await fieldsOf(storages.create({ ...dir, 'prune-backups': 'keep-some=1' }, nothingToPrepare))
    assert.deepEqual(Object.keys(fields3), ['prune-backups'])
  })

  test('have their name and their folder to themselves', async () => {
    const storages = await registry(dir)
    await assert.rejects(storages.create({ ...dir, path: '/srv/b' }, nothingToPrepare), /storage 'fast' already exists/)
    const fields = await fieldsOf(storages.create({ ...dir, storage: 'slow' }, nothingToPrepare))
    assert.match(fields.path ?? '', /is the path of storage 'fast' already/)
  })

  test('are not there when their place cannot be made ready', async () => {
    const storages = await registry()
    const failing = async () => Promise.reject(new Error('no such disk'))
    await assert.rejects(storages.create(dir, failing), /no such disk/)
    assert.deepEqual(await storages.list(), [])
  })

  test('change and return to their defaults', async () => {
    const storages = await registry({ ...dir, nodes: 'a', 'prune-backups': 'keep-last=3' })
    await storages.update(
      'fast',
      { set: { content: 'iso', disable: true }, remove: ['nodes', 'prune-backups'] },
      nothingToPrepare,
    )
    const { content, nodes, isDisabled, pruneBackups, options } = await storages.get('fast')
    assert.deepEqual([content, nodes, isDisabled, pruneBackups], [['iso'], undefined, true, undefined])
    assert.deepEqual(options, { path: '/srv/fast' })
    assert.deepEqual(Object.keys(await fieldsOf(storages.update('fast', { remove: ['path'] }, nothingToPrepare))), [
      'path',
    ])
    await assert.rejects(storages.update('gone', {}, nothingToPrepare), /storage 'gone' does not exist/)
  })

  test('changed by somebody else meanwhile are not overwritten', async () => {
    const storages = await registry(dir)
    const { digest } = await storages.get('fast')
    await storages.update('fast', { set: { content: 'iso' }, digest }, nothingToPrepare)
    await assert.rejects(
      storages.update('fast', { set: { content: 'images' }, digest }, nothingToPrepare),
      (error: Fault) => {
        assert.equal(error.kind, 'conflict')
        assert.equal(error.message, 'detected modified configuration - file changed by other user? Try again.')
        return true
      },
    )
    assert.deepEqual((await storages.get('fast')).content, ['iso'])
  })

  test('are forgotten once', async () => {
    const storages = await registry(dir)
    await storages.delete('fast')
    await assert.rejects(storages.delete('fast'), /storage 'fast' does not exist/)
  })
})
