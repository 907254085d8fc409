/** Snapshots, growing disks, keys and QEMU's console, on a guest that is asked what it sees. */
import assert from 'node:assert/strict'
import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('snapshots of a running guest', { timeout: 900_000 }, () => {
  let node: TestNode
  let guest: string
  before(async () => {
    node = await nodeUnderTest()
    guest = `/nodes/${node.settings.node}/qemu/100`
    const { path } = await ensureGuestImage({ host: machine(), cacheDir: node.settings.cacheDir })
    await node.boot(100, { scsi0: `local:0,import-from=${path},format=qcow2` })
  })
  after(() => node[Symbol.asyncDispose]())

  const list = async () => (await node.api('GET', `${guest}/snapshot`)) as Reply[]
  const config = async () => (await node.api('GET', `${guest}/config`)) as Reply
  const create = async (snapname: string, more = {}) =>
    node.task(await node.api('POST', `${guest}/snapshot`, { snapname, ...more }))
  const untilAgent = () =>
    waitFor(
      () =>
        node.api('POST', `${guest}/agent/ping`).then(
          () => true,
          () => false,
        ),
      { what: 'the agent', timeoutMs: 90_000, everyMs: 100 },
    )
  const refusal = async (method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, params = {}) => {
    try {
      await node.api(method, path, params)
    } catch (fault) {
      if (isFault(fault)) return fault
      throw fault
    }
    throw new assert.AssertionError({ message: `${method} ${path} was not refused` })
  }

  test('a file deleted after the snapshot is there again after the rollback', async () => {
    await node.sh(100, 'echo kept > /note && sync')
    const { log } = await create('before', { description: 'with the note' })
    assert.match(log, /file systems were frozen/)
    await node.sh(100, 'rm /note && sync')
    await node.task(await node.api('POST', `${guest}/snapshot/before/rollback`, { start: '1' }))
    await untilAgent()
    assert.equal(await node.sh(100, 'cat /note'), 'kept')
  })

  test('a list shows what was taken, and where the guest stands', async () => {
    const [taken, now, ...rest] = await list()
    assert.deepEqual(rest, [])
    const { snaptime, ...facts } = taken ?? {}
    assert.deepEqual(facts, { name: 'before', description: 'with the note', vmstate: 0 })
    assert.ok(Math.abs(Number(snaptime) - Date.now() / 1000) < 600)
    const { digest, ...current } = now ?? {}
    assert.deepEqual(current, { name: 'current', description: 'You are here!', running: 1, parent: 'before' })
    assert.equal(digest, (await config()).digest)
    assert.equal((await config()).parent, 'before')
    const kept = (await node.api('GET', `${guest}/snapshot/before/config`)) as Reply
    assert.equal(kept.scsi0, (await config()).scsi0)
    assert.equal(kept.description, 'with the note')
    await node.api('PUT', `${guest}/snapshot/before/config`, { description: 'renamed' })
    assert.equal((await list())[0]?.description, 'renamed')
    const old = (await node.api('GET', `${guest}/config`, { snapshot: 'before' })) as Reply
    assert.equal(old.scsi0, kept.scsi0)
  })

  test('with its memory a guest goes on in the middle of its work', async () => {
    await node.sh(
      100,
      'mkdir -p /m; mount -t tmpfs none /m; (n=0; while :; do n=$((n+1)); echo $n > /m/n; sleep 1; done) >/dev/null 2>&1 & echo $! > /m/p',
    )
    const count = async () => Number(await node.sh(100, 'cat /m/n'))
    await waitFor(async () => (await count().catch(() => 0)) >= 3, { what: 'a counter', timeoutMs: 60_000 })
    const uptime = async () => Number(await node.sh(100, 'cut -d. -f1 /proc/uptime'))
    const [from, upThen] = [await count(), await uptime()]
    await create('live', { vmstate: '1' })
    assert.equal((await list()).find(({ name }) => name === 'live')?.vmstate, 1)
    const then = await count()
    await waitFor(async () => (await count()) >= then + 5, { what: 'the counter', timeoutMs: 60_000 })
    await node.sh(100, 'kill $(cat /m/p); rm /m/n /m/p /note; sync')

    await node.task(await node.api('POST', `${guest}/snapshot/live/rollback`))
    await untilAgent()
    assert.equal(await node.sh(100, 'cat /note'), 'kept')
    assert.equal(await node.sh(100, 'kill -0 $(cat /m/p) && echo alive'), 'alive')
    const again = await count()
    assert.ok(again >= from, `the counter says ${again} after ${from}`)
    await waitFor(async () => (await count()) > again, { what: 'the counter going on', timeoutMs: 60_000 })
    assert.ok((await uptime()) >= upThen, 'the guest was booted anew')
  })

  test('memory is kept on the storage that was named for it, and loaded from there', async () => {
    const path = join(node.settings.stateDir, 'memories')
    await mkdir(path)
    await node.api('POST', '/storage', { storage: 'memories', type: 'dir', path, content: 'images' })
    await node.api('PUT', `${guest}/config`, { vmstatestorage: 'memories' })
    await create('apart', { vmstate: '1' })
    const kept = (await node.api('GET', `${guest}/snapshot/apart/config`)) as Reply
    assert.equal(kept.vmstate, 'memories:100/vm-100-state-apart.qcow2')
    const file = join(path, 'images/100/vm-100-state-apart.qcow2')
    assert.ok((await stat(file)).size > 16 * MiB)
    await node.sh(100, 'kill $(cat /m/p); rm /m/p; sync')
    await node.task(await node.api('POST', `${guest}/snapshot/apart/rollback`))
    await untilAgent()
    assert.equal(await node.sh(100, 'kill -0 $(cat /m/p) && echo alive'), 'alive')
    await node.task(await node.api('DELETE', `${guest}/snapshot/apart`))
    await assert.rejects(stat(file), { code: 'ENOENT' })
    await node.api('PUT', `${guest}/config`, { delete: 'vmstatestorage' })
  })

  test('a snapshot is deleted while the guest runs, and its content with it', async () => {
    for (const name of ['live', 'before']) await node.task(await node.api('DELETE', `${guest}/snapshot/${name}`))
    assert.deepEqual(
      (await list()).map(({ name }) => name),
      ['current'],
    )
    assert.equal(
      await node.api('POST', `${guest}/monitor`, { command: 'info snapshots' }).then(String),
      'There is no snapshot available.\r\n',
    )
    assert.equal(await node.sh(100, 'cat /note'), 'kept')
  })

  test('a missing or impossible snapshot is refused at once, in the words clients know', async () => {
    for (const [method, path] of [
      ['DELETE', 'snapshot/gone'],
      ['POST', 'snapshot/gone/rollback'],
      ['GET', 'snapshot/gone/config'],
      ['PUT', 'snapshot/gone/config'],
    ] as const) {
      assert.match((await refusal(method, `${guest}/${path}`)).message, /^snapshot 'gone' does not exist/)
    }
    assert.match((await refusal('GET', `${guest}/config`, { snapshot: 'gone' })).message, /does not exist/)
    assert.match((await refusal('POST', `${guest}/snapshot`, { snapname: 'current' })).message, /reserved name/)
    assert.deepEqual(Object.keys((await refusal('POST', `${guest}/snapshot`, { snapname: '1st' })).fields ?? {}), [
      'snapname',
    ])
  })

  test('a disk grows under the running guest, which sees it', async () => {
    const sectors = async () => Number(await node.sh(100, 'cat /sys/block/sda/size'))
    const before = await sectors()
    await node.task(await node.api('PUT', `${guest}/resize`, { disk: 'scsi0', size: '+64M' }))
    assert.equal((await sectors()) * 512, before * 512 + 64 * MiB)
    const { scsi0 } = await config()
    await node.task(await node.api('PUT', `${guest}/resize`, { disk: 'scsi0', size: '1M' }), /shrinking disks is not/)
    assert.equal((await config()).scsi0, scsi0)
    const pending = (await node.api('GET', `${guest}/pending`)) as Reply[]
    assert.deepEqual(
      pending.filter((item) => 'pending' in item),
      [],
    )
  })

  test('keys reach the guest’s keyboard, and unknown ones are named', async () => {
    await node.api('PUT', `${guest}/sendkey`, { key: 'ctrl-a' })
    await node.api('PUT', `${guest}/sendkey`, { key: '0x1e' })
    const { fields } = await refusal('PUT', `${guest}/sendkey`, { key: 'ctrl-nonsense' })
    assert.deepEqual(fields, { key: "unknown key 'nonsense'" })
    assert.match(String(await node.api('POST', `${guest}/monitor`, { command: 'info status' })), /VM status: running/)
  })

  test('a disk is taken out, kept as unused, and then destroyed', async () => {
    await node.api('PUT', `${guest}/config`, { scsi1: 'local:0.01' })
    await node.api('PUT', `${guest}/unlink`, { idlist: 'scsi1' })
    const { scsi1, unused0 } = await config()
    assert.deepEqual([scsi1, unused0], [undefined, 'local:100/vm-100-disk-1.raw'])
    await node.api('PUT', `${guest}/unlink`, { idlist: 'unused0' })
    assert.equal((await config()).unused0, undefined)
    const content = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`)) as Reply[]
    assert.deepEqual(
      content.filter(({ volid }) => String(volid).includes('disk-1')),
      [],
    )
  })

  test('a guest with snapshots is backed up, running and stopped, and comes back whole', async () => {
    await create('kept', { vmstate: '1' })
    const backUp = async () => node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100' }))
    await backUp()
    await node.task(await node.api('POST', `${guest}/status/stop`))
    await backUp()
    const content = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
      content: 'backup',
    })) as Reply[]
    assert.equal(content.length, 2)
    for (const { volid } of content) {
      const restored = `/nodes/${node.settings.node}/qemu`
      await node.task(
        await node.api('POST', restored, { vmid: '200', archive: String(volid), unique: '1', start: '1' }),
      )
      await waitFor(
        () =>
          node.sh(200, 'cat /note').then(
            (note) => note === 'kept',
            () => false,
          ),
        { what: 'the note in the restored guest', timeoutMs: 90_000 },
      )
      assert.deepEqual(
        ((await node.api('GET', `${restored}/200/snapshot`)) as Reply[]).map(({ name }) => name),
        ['current'],
      )
      await node.task(await node.api('POST', `${restored}/200/status/stop`))
      await node.task(await node.api('DELETE', `${restored}/200`))
    }
    await node.task(await node.api('DELETE', guest))
  })
})
