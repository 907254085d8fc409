/**
 * Disks that are full, or become full meanwhile: what was asked for fails and says which disk, and how much is
 * missing where that is known; nothing half made is left, and with space again everything goes on.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { type SmallDisk, smallDisk } from '../fixtures/small-disk.ts'

suite('a full storage', { timeout: 300_000 }, () => {
  let node: TestNode
  let disk: SmallDisk
  /** Backups of a guest whose disk is a plain file, and of one whose disk is an image with a format of its own. */
  let [archive, layered] = ['', '']
  const here = () => `/nodes/${node.settings.node}`
  const inState = (name: string) => join(node.settings.stateDir, name)

  before(async () => {
    node = await nodeUnderTest()
    disk = await smallDisk(inState('small'), 24 * MiB)
    const content = 'images,iso,backup'
    await node.api('POST', '/storage', { storage: 'small', type: 'dir', path: disk.path, content })
    for (const name of ['image.raw', 'a.iso']) await writeFile(inState(name), randomBytes(16 * MiB))
    for (const [vmid, format] of [
      ['100', 'raw'],
      ['101', 'qcow2'],
    ] as const) {
      const scsi0 = `local:0,import-from=${inState('image.raw')},format=${format}`
      await node.task(await node.api('POST', `${here()}/qemu`, { vmid, memory: '16', vga: 'none', scsi0 }))
      await node.task(await node.api('POST', `${here()}/vzdump`, { vmid, storage: 'local' }))
    }
    ;[archive = '', layered = ''] = await backups('local')
  })
  after(async () => {
    await disk[Symbol.asyncDispose]()
    await node[Symbol.asyncDispose]()
  })

  const backUp = async (storage: string, expected: RegExp, more: Record<string, string> = {}) =>
    node.task(await node.api('POST', `${here()}/vzdump`, { vmid: '100', storage, ...more }), expected)
  const backups = async (storage: string) => {
    const list = await node.api('GET', `${here()}/storage/${storage}/content`, { content: 'backup' })
    return (list as { volid: string }[]).map(({ volid }) => volid)
  }
  /** Every file there, and how much is free. */
  const state = async () => ({
    files: (await readdir(disk.path, { recursive: true })).toSorted(),
    free: await disk.freeBytes(),
    guests: ((await node.api('GET', `${here()}/qemu`)) as { vmid: number }[]).map(({ vmid }) => vmid),
    spool: (await readdir(inState('upload'), { recursive: true })).length,
  })
  /** Fails as expected, and the world is as before. */
  const leavesNothing = async (work: () => Promise<unknown>) => {
    const before = await state()
    await work()
    assert.deepEqual(await state(), before)
  }

  test('a backup that does not fit fails with what is missing, gives back its space, and fits once there is some', async () => {
    const noSpace =
      /^no space left on storage 'small' for the backup of VM 100: up to 16\.0 MiB needed, \S+ (B|KiB|MiB) available$/
    await disk.fill(6 * MiB)
    // The first one makes the datastore, and that stays.
    await backUp('small', noSpace)
    await leavesNothing(() => backUp('small', noSpace))
    await node.task(await node.api('POST', `${here()}/qemu/100/status/start`))
    await leavesNothing(() => backUp('small', noSpace))
    assert.deepEqual(await backups('small'), [])
    await disk.fill()
    await leavesNothing(() => backUp('small', /^no space left on storage 'small' for the backup of VM 100: /))

    await disk.empty()
    await backUp('small', /^OK$/)
    const [made = ''] = await backups('small')
    await node.task(await node.api('POST', '/hako/drills', { archive: made, level: 'L1' }))
    const { status } = (await node.api('GET', `${here()}/qemu/100/status/current`)) as { status: string }
    assert.equal(status, 'running')
  })

  test('a backup is removed from a storage that is full to the last block', async () => {
    await disk.fill()
    const [made = ''] = await backups('small')
    await node.task(await node.api('DELETE', `${here()}/storage/small/content/${made}`))
    assert.ok((await disk.freeBytes()) >= 15 * MiB)
    await disk.empty()
  })

  test('old blocks of a running guest that find no place fail its backup, not the guest', async () => {
    await disk.fill(6 * MiB)
    const noSpace = /^not enough space on storage 'small' for a disk of guest 100: 16\.0 MiB needed, \S+ MiB available$/
    await leavesNothing(() => backUp('local', noSpace, { fleecing: 'storage=small' }))
    await node.task(await node.api('POST', `${here()}/qemu/100/status/stop`))
  })

  for (const [what, params] of [
    ['a new disk', () => ({ scsi0: 'small:1' })],
    ['an imported disk', () => ({ scsi0: `small:0,import-from=${inState('image.raw')}` })],
    ['a restored disk', () => ({ archive, storage: 'small' })],
  ] as const) {
    test(`${what} that does not fit is refused with what it needs, and no guest is there`, async () => {
      const noSpace = /^not enough space on storage 'small' for .*: (1\.0 GiB|16\.\d MiB) needed, \S+ MiB available$/
      await leavesNothing(async () => {
        const upid = await node.api('POST', `${here()}/qemu`, { vmid: '110', ...params() })
        const { log } = await node.task(upid, noSpace)
        assert.match(log, /^Free \S+ MiB there, or choose another storage\.$/m)
      })
    })
  }

  test('an upload that does not fit is refused, and its spooled file is gone', async () => {
    const noSpace = /^not enough space on storage 'small' for file 'a\.iso': 16\.0 MiB needed, \S+ MiB available$/
    await leavesNothing(async () => {
      const params = { content: 'iso', filename: inState('a.iso') }
      const reply = await node.connection.call('POST', `${here()}/storage/small/upload`, params, { isUpload: true })
      await node.task(reply.data, noSpace)
    })
  })

  test('a drill whose restore does not fit proves nothing, says why, and leaves nothing', async () => {
    const notProven = /NOT proven: reached L1 of L2; L2 failed: not enough space on storage 'small' for .* needed/
    await leavesNothing(async () => {
      await node.task(await node.api('POST', '/hako/drills', { archive, storage: 'small', level: 'L2' }), notProven)
    })
  })

  for (const [what, source] of [
    ['restored as they were', () => ({ archive, storage: 'small' })],
    ['restored into an image format', () => ({ archive: layered, storage: 'small' })],
    ['imported', () => ({ scsi0: `small:0,import-from=${inState('image.raw')}` })],
  ] as const) {
    test(`of several disks that fit one by one, but not together, ${what}, those that fail leave nothing`, async () => {
      await disk.empty()
      const { files: _files, ...before } = await state()
      const vmids = ['111', '112', '113']
      const upids = await Promise.all(vmids.map((vmid) => node.api('POST', `${here()}/qemu`, { vmid, ...source() })))
      const ends = await Promise.all(
        upids.map((upid) => node.task(upid, /^OK$|^no.* space .*on storage 'small' for .*: .* available$/)),
      )
      const whole = vmids.filter((_, index) => ends[index]?.exitstatus === 'OK')
      assert.ok(whole.length <= 1)
      assert.deepEqual((await state()).guests, [...before.guests, ...whole.map(Number)])
      for (const vmid of whole) await node.task(await node.api('DELETE', `${here()}/qemu/${vmid}`))
      const { files, ...after } = await state()
      assert.deepEqual(after, before)
      assert.deepEqual(
        files.filter((name) => /^images\/\d/.test(name)),
        [],
      )
    })
  }
})
