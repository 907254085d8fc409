/** A virtual machine whose disk is a raw image on btrfs: what the storage does for it while it runs, and when it does not. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { GiB } from '#base/bytes.ts'
import { machine } from '#host/exec.ts'
import { mountImage } from '#host/disks/mount.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { type BtrfsDisk, btrfsDisk } from '../fixtures/btrfs-disk.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('a virtual machine on btrfs', { timeout: 600_000 }, () => {
  let node: TestNode
  let disk: BtrfsDisk
  let guest: string
  before(async () => {
    ;[node, disk] = await Promise.all([nodeUnderTest(), btrfsDisk(GiB)])
    guest = `/nodes/${node.settings.node}/qemu`
    const path = join(disk.path, 'guests')
    await node.api('POST', '/storage', { storage: 'btr', type: 'btrfs', path, content: 'images,backup' })
    const { path: image } = await ensureGuestImage({ host: machine(), cacheDir: node.settings.cacheDir })
    await node.boot(100, { scsi0: `btr:0,import-from=${image}` })
  })
  after(async () => {
    await node?.[Symbol.asyncDispose]()
    await disk?.[Symbol.asyncDispose]()
  })

  const say = (text: string) => node.sh(100, `echo ${text} > /note && sync`)
  const volume = async (vmid: number) =>
    String(((await node.api('GET', `${guest}/${vmid}/config`)) as Reply).scsi0).split(',')[0] ?? ''
  const pathOf = async (volid: string) =>
    String(((await node.api('GET', `/nodes/${node.settings.node}/storage/btr/content/${volid}`)) as Reply).path)
  /** What the note on a disk says that nobody has open. */
  const noteOn = async (image: string) => {
    const folder = await mkdtemp(join(tmpdir(), 'hako-note-'))
    try {
      await using mounted = await mountImage(machine(), {
        image,
        target: join(folder, 'm'),
        isReadOnly: true,
        options: ['noload'],
      })
      return (await readFile(join(mounted.target, 'note'), 'utf8')).trim()
    } finally {
      await rm(folder, { recursive: true })
    }
  }

  test('goes back to a snapshot of disk and memory, and goes on from there', async () => {
    assert.equal(await volume(100), 'btr:100/vm-100-disk-0.raw')
    // Past the page cache the file system would sum up what the guest is still changing.
    assert.match(String(await node.api('POST', `${guest}/100/monitor`, { command: 'info block' })), /writeback\r?$/m)
    await say('first')
    await node.sh(100, 'mkdir -p /m; mount -t tmpfs none /m; echo kept > /m/only-in-memory')
    const { log } = await node.task(await node.api('POST', `${guest}/100/snapshot`, { snapname: 'live', vmstate: '1' }))
    assert.match(log, /the guest was halted for \d+ ms/)
    const kept = (await node.api('GET', `${guest}/100/snapshot/live/config`)) as Reply
    assert.equal(kept.vmstate, 'btr:100/vm-100-state-live.qcow2')
    await say('second')
    await node.sh(100, 'rm /m/only-in-memory')
    await node.task(await node.api('POST', `${guest}/100/snapshot/live/rollback`))
    assert.equal(await node.sh(100, 'cat /m/only-in-memory; cat /note'), 'kept\nfirst')
  })

  test('is snapshotted as it runs, with its file systems frozen, and taken back when it does not', async () => {
    await say('third')
    const { log } = await node.task(await node.api('POST', `${guest}/100/snapshot`, { snapname: 'still' }))
    assert.match(log, /the guest was halted for \d+ ms/)
    assert.match(log, /file systems were frozen/)
    await say('fourth')
    await node.task(await node.api('POST', `${guest}/100/snapshot/still/rollback`))
    assert.equal(await noteOn(await pathOf(await volume(100))), 'third')
  })

  test('is copied from its snapshot, and backed up', async () => {
    const full = { newid: '101', full: '1', snapname: 'live' }
    await node.task(await node.api('POST', `${guest}/100/clone`, full))
    assert.equal(await noteOn(await pathOf(await volume(101))), 'first')
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100', storage: 'btr' }))
    for (const snapname of ['live', 'still'])
      await node.task(await node.api('DELETE', `${guest}/100/snapshot/${snapname}`))
    assert.deepEqual(
      await node
        .api('GET', `/nodes/${node.settings.node}/storage/btr/content`, { content: 'images' })
        .then((all) => (all as Reply[]).map(({ volid }) => volid)),
      ['btr:100/vm-100-disk-0.raw', 'btr:101/vm-101-disk-0.raw'],
    )
  })

  test('has linked clones that outlive it', async () => {
    await node.task(await node.api('POST', `${guest}/100/template`))
    assert.equal(await volume(100), 'btr:100/base-100-disk-0.raw')
    await node.task(await node.api('POST', `${guest}/100/clone`, { newid: '102' }))
    assert.equal(await volume(102), 'btr:102/vm-102-disk-0.raw')
    await node.task(await node.api('DELETE', `${guest}/100`))
    assert.equal(await noteOn(await pathOf(await volume(102))), 'third')
    await node.task(await node.api('PUT', `${guest}/102/resize`, { disk: 'scsi0', size: '+64M' }))
  })
})
