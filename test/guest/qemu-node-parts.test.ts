/**
 * Parts of the node in a guest, asked from inside and from the node: a folder both see, and the bus on which helpers
 * of the node give QEMU the state they hold for it.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { findProcesses, statOf } from '#host/programs/proc.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

suite('parts of the node in a guest', { timeout: 600_000 }, () => {
  let node: TestNode
  let guest: string
  let folder: string
  before(async () => {
    node = await nodeUnderTest()
    guest = `/nodes/${node.settings.node}/qemu/100`
    folder = join(node.settings.stateDir, 'shared')
    await mkdir(folder)
    await writeFile(join(folder, 'from-the-node'), 'hello from the node')
    await node.api('POST', '/cluster/mapping/dir', { id: 'share', map: [`node=${node.settings.node},path=${folder}`] })
    await node.boot(100, { virtiofs0: 'share,cache=never', machine: 'pc' })
  })
  after(() => node[Symbol.asyncDispose]())

  const sh = (script: string) => node.sh(100, script)
  const runDir = (vmid: number) => join(node.settings.runDir, 'guests', String(vmid))
  const besides = async (vmid: number, program: string) => {
    const pids = await findProcesses((argv) => argv.some((part) => part.includes(runDir(vmid))))
    const stats = await Promise.all(pids.map(statOf))
    return stats.flatMap((one) => (one?.command === program ? [one.pid] : []))
  }
  const locks = async () => (await readdir('/run/virtiofsd')).filter((name) => name.includes(node.settings.instance))

  test('a folder of the node is read and written by the guest, and each user’s files are that user’s', async () => {
    await sh('modprobe virtiofs && mkdir -p /mnt/share && mount -t virtiofs share /mnt/share')
    assert.equal(await sh('cat /mnt/share/from-the-node'), 'hello from the node')
    await sh('echo hello from the guest > /mnt/share/from-the-guest; chown 1234:55 /mnt/share/from-the-guest')
    const path = join(folder, 'from-the-guest')
    assert.equal(await readFile(path, 'utf8'), 'hello from the guest\n')
    const { uid, gid } = await stat(path)
    assert.deepEqual([uid, gid], [1234, 55])
    await writeFile(join(folder, 'later'), 'written on the node')
    assert.equal(await sh('cat /mnt/share/later'), 'written on the node')
  })

  test('the server of a folder is shut in there, and makes no devices', async () => {
    assert.equal(await sh('mknod /mnt/share/disk b 8 0 2>/dev/null || echo refused'), 'refused')
    const servers = await besides(100, 'virtiofsd')
    const inner = servers.at(-1)
    const status = await readFile(`/proc/${inner}/status`, 'utf8')
    assert.match(status, /^NoNewPrivs:\t1$/m)
    assert.match(status, /^Seccomp:\t2$/m)
    // The right to make mounts, with which it shut itself in, is gone.
    const rights = Number.parseInt(/^CapEff:\t(\w+)$/m.exec(status)?.[1] ?? 'x', 16)
    assert.equal(rights & ((1 << 21) | (1 << 27)), 0)
    assert.deepEqual((await readdir(`/proc/${inner}/root`)).toSorted(), (await readdir(folder)).toSorted())
    assert.ok((await readFile(`/proc/${inner}/cgroup`, 'utf8')).includes('qemu-100'))
  })

  test('helpers meet QEMU on a bus of the guest, and their state leaves with its own', async () => {
    const other = `/nodes/${node.settings.node}/qemu/101`
    const bus = (action: string) => node.api('POST', `${other}/dbus-vmstate`, { action })
    await node.task(
      await node.api('POST', `/nodes/${node.settings.node}/qemu`, {
        vmid: '101',
        memory: '16',
        vga: 'none',
        scsi0: 'local:0.01,format=qcow2',
      }),
    )
    await assert.rejects(bus('start'), (fault) => isFault(fault) && /VM 101 not running/.test(fault.message))
    await node.task(await node.api('POST', `${other}/status/start`))
    for (const action of ['start', 'start', 'stop', 'stop', 'start']) await bus(action)
    const [pid, ...more] = await besides(101, 'dbus-daemon')
    assert.deepEqual(more, [])
    assert.match(await readFile(`/proc/${pid}/status`, 'utf8'), /^CapBnd:\t0+$/m)

    const secret = 'what the helper remembers'
    const program = join(import.meta.dirname, '../fixtures/state_helper.py')
    const helper = spawn('/usr/bin/python3', [program, `unix:path=${runDir(101)}/bus.sock`, secret])
    await using scope = new AsyncDisposableStack()
    scope.defer(() => void helper.kill())
    // One that lacks its packages ends without a word.
    const [said] = await Promise.race([once(helper.stdout, 'data'), once(helper, 'exit')])
    assert.ok(Buffer.isBuffer(said), `the helper ended with ${said}`)
    const snapshot = await node.api('POST', `${other}/snapshot`, { snapname: 'never', vmstate: '1' })
    await node.task(snapshot, /helpers of the node hold a part of its state/)

    const parts: Buffer[] = []
    const elsewhere = createServer((socket) => socket.on('data', (part: Buffer) => parts.push(part)))
    scope.defer(() => void elsewhere.close())
    elsewhere.listen(join(runDir(101), 'elsewhere.sock'))
    await once(elsewhere, 'listening')
    await chmod(join(runDir(101), 'elsewhere.sock'), 0o666)
    await node.api('POST', `${other}/monitor`, { command: `migrate -d unix:${runDir(101)}/elsewhere.sock` })
    const hasLeft = () => Buffer.concat(parts).includes(secret)
    await waitFor(hasLeft, { what: 'what the helper holds in the state of the guest', timeoutMs: 60_000 })

    await node.task(await node.api('POST', `${other}/status/stop`))
    assert.deepEqual(await besides(101, 'dbus-daemon'), [])
    assert.deepEqual(await readdir(join(node.settings.runDir, 'guests')).then((all) => all.filter(isOf101)), ['101'])
  })

  test('the folder stays while the node is away, and leaves nothing when its guest goes', async () => {
    await node.kill9()
    await node.restart()
    assert.equal(await sh('echo on > /mnt/share/after && cat /mnt/share/from-the-guest'), 'hello from the guest')
    assert.equal(await readFile(join(folder, 'after'), 'utf8'), 'on\n')
    const upid = await node.api('POST', `${guest}/snapshot`, { snapname: 'never', vmstate: '1' })
    await node.task(upid, /virtiofs0 is a folder of the node/)
    await node.task(await node.api('POST', `${guest}/status/stop`))
    assert.deepEqual([await besides(100, 'virtiofsd'), await locks()], [[], []])
  })

  test('a folder that is not there is said at the start, and one that cannot be is refused', async () => {
    await rm(folder, { recursive: true })
    await node.task(await node.api('POST', `${guest}/status/start`), /virtiofs0: '.*shared', .* is no directory/)
    assert.deepEqual([await besides(100, 'virtiofsd'), await locks()], [[], []])
    const set = (text: string) => node.api('PUT', `${guest}/config`, { virtiofs1: text })
    const names = (rule: RegExp) => (fault: unknown) => isFault(fault) && rule.test(String(fault.fields?.virtiofs1))
    await assert.rejects(set('share'), names(/directory 'share' is virtiofs0 already/))
    await assert.rejects(set(`d${'x'.repeat(40)}`), names(/may have 36 characters/))
    await assert.rejects(set('other,cache=metadata'), names(/there are auto, always and never/))
    await set('other')
    await node.api('PUT', `${guest}/config`, { delete: 'virtiofs0' })
    await node.task(
      await node.api('POST', `${guest}/status/start`),
      /directory mapping 'other on this node' does not exist/,
    )
  })
})

const isOf101 = (name: string) => name.startsWith('101')
