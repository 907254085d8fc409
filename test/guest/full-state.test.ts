/**
 * The disk of a node's own state is full: what cannot be written down is refused in clear words, what can be
 * read is read, nothing is damaged, and once there is space again the node goes on by itself.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { openSqliteStore } from '#store/sqlite.ts'
import { heldLocks } from '#tasks/lock.ts'
import { cutPower } from '../fixtures/power-cut.ts'
import { type SmallDisk, smallDisk } from '../fixtures/small-disk.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

suite('a full state directory', { timeout: 300_000 }, () => {
  let node: TestNode
  let disk: SmallDisk
  /** On another disk, with space. */
  let elsewhere = ''
  const here = () => `/nodes/${node.settings.node}`

  before(async () => {
    elsewhere = await mkdtemp('/var/tmp/hako-elsewhere-')
    node = await nodeUnderTest()
    const { stateDir } = node.settings
    await cutPower(node.settings)
    await cp(stateDir, join(elsewhere, 'state'), { recursive: true })
    // An upload leaves 256 MiB free.
    disk = await smallDisk(stateDir, 320 * MiB)
    await cp(join(elsewhere, 'state'), stateDir, { recursive: true })
    await node.restart()
    for (const name of ['image.raw', 'a.iso']) await writeFile(join(elsewhere, name), randomBytes(8 * MiB))
    const path = join(elsewhere, 'storage')
    await mkdir(path)
    await node.api('POST', '/storage', { storage: 'big', type: 'dir', path, content: 'images,iso,backup' })
    const scsi0 = `big:0,import-from=${join(elsewhere, 'image.raw')},format=raw`
    await node.task(await node.api('POST', `${here()}/qemu`, { vmid: '100', memory: '16', vga: 'none', scsi0 }))
  })
  after(async () => {
    await cutPower(node.settings)
    await disk[Symbol.asyncDispose]()
    await node[Symbol.asyncDispose]()
    await rm(elsewhere, { recursive: true })
  })

  const rename = (name: string) => node.api('PUT', `${here()}/qemu/100/config`, { name })
  const create = (vmid: string) => node.api('POST', `${here()}/qemu`, { vmid, scsi0: 'big:0.01' })
  const upload = async () => {
    const params = { content: 'iso', filename: join(elsewhere, 'a.iso') }
    return (await node.connection.call('POST', `${here()}/storage/big/upload`, params, { isUpload: true })).data
  }
  const says = (text: RegExp) => (fault: unknown) => {
    assert.ok(isFault(fault, 'exhausted'), String(fault))
    assert.match(fault.message, text)
    assert.match(fault.remedy ?? '', /^Free space/)
    return true
  }
  const guests = async () => ((await node.api('GET', `${here()}/qemu`)) as { vmid: number }[]).map(({ vmid }) => vmid)
  const everythingWorks = async (round: string) => {
    await rename(`r${round}`)
    await node.task(await create(`20${round}`))
    await node.task(await upload())
    await node.task(await node.api('POST', `${here()}/vzdump`, { vmid: '100', storage: 'big' }))
    await using store = await openSqliteStore(join(node.settings.stateDir, 'store.sqlite'), { isChecked: true })
    assert.deepEqual(await heldLocks(store), [])
  }

  test('refuses what it cannot write down, answers the rest, and goes on when there is space', async () => {
    const params = { vmid: '100', storage: 'big', bwlimit: '4096' }
    const slow = await node.api('POST', `${here()}/vzdump`, params)
    const journal = join(node.settings.stateDir, 'tasks', String(slow), 'journal')
    const isAtWork = async () => (await readFile(journal, 'utf8')).includes('backups')
    await waitFor(isAtWork, { what: 'the backup at work', timeoutMs: 60_000 })
    await disk.fill()

    await assert.rejects(rename('x'), says(/^no space left for the store '.*store\.sqlite'$/))
    await assert.rejects(create('101'), says(/^no space left on the device of '.*\/tasks\/.*'$/))
    await assert.rejects(
      upload(),
      says(/^no space for the upload: it needs 8\.0 MiB, and 256 MiB must stay free; '.*' has .* free$/),
    )
    assert.deepEqual(await guests(), [100])
    const tasks = (await node.api('GET', `${here()}/tasks`, { source: 'active' })) as { upid: string }[]
    assert.deepEqual(
      tasks.map(({ upid }) => upid),
      [slow],
    )

    await disk.empty()
    const { exitstatus } = await node.task(slow, /^OK$|no space left|^interrupted: undone$/)
    const backups = (await node.api('GET', `${here()}/storage/big/content`, { content: 'backup' })) as object[]
    assert.equal(backups.length, exitstatus === 'OK' ? 1 : 0)
    await everythingWorks('1')
  })

  test('a daemon that finds no space says so, or serves; the one after that finds everything whole', async () => {
    await disk.fill()
    await node.kill9()
    const outcome = await node.restart().then(() => 'serves', String)
    assert.match(outcome, /^serves$|the node cannot run: no space left for the store/)
    await disk.empty()
    if (outcome !== 'serves') await node.restart()
    assert.deepEqual(await guests(), [100, 201])
    await everythingWorks('2')
  })
})
