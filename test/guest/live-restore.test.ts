/** A guest runs from its backup while its disks come; whoever dies on the way, nothing is lost. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { open, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { findProcesses, signalProcess, startTimeOf } from '#host/programs/proc.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { scsiDisk } from '../fixtures/guests/scsi-disk.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('a restore into a running guest', { timeout: 900_000 }, () => {
  let node: TestNode
  let qemu: string
  let archive: string
  /** What the second disk holds. */
  const second = randomBytes(6 * MiB)
  before(async () => {
    node = await nodeUnderTest()
    const source = join(node.settings.stateDir, 'second.raw')
    await writeFile(source, second)
    qemu = `/nodes/${node.settings.node}/qemu`
    const image = await ensureGuestImage({ host: machine(), cacheDir: node.settings.cacheDir })
    await node.task(
      await node.api('POST', qemu, {
        vmid: '100',
        memory: '192',
        machine: 'pc',
        agent: '1',
        serial0: 'socket',
        scsihw: 'virtio-scsi-pci',
        scsi0: `local:0,import-from=${image.path}`,
        scsi1: `local:0,import-from=${source}`,
      }),
    )
    await node.api('PUT', '/storage/local', { content: 'images,iso,backup' })
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100', storage: 'local' }))
    const [backup] = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
      content: 'backup',
    })) as Reply[]
    archive = String(backup?.volid)
  })
  after(() => node[Symbol.asyncDispose]())

  const restore = async (vmid: number, more: Record<string, string> = {}) =>
    node.api('POST', qemu, { vmid: String(vmid), archive, 'live-restore': '1', unique: '1', ...more })
  const statusOf = async (vmid: number) => (await node.api('GET', `${qemu}/${vmid}/status/current`)) as Reply
  const untilAgent = (vmid: number) =>
    waitFor(
      () =>
        node.api('POST', `${qemu}/${vmid}/agent/ping`).then(
          () => true,
          () => false,
        ),
      { what: `the agent of ${vmid}`, timeoutMs: 120_000, everyMs: 100 },
    )
  const blocks = (vmid: number) =>
    node.api('POST', `${qemu}/${vmid}/monitor`, { command: 'info block drive-scsi0' }).then(String)
  const fillings = async (vmid: number) =>
    (await node.api('GET', `/nodes/${node.settings.node}/tasks`, {
      source: 'all',
      typefilter: 'qmfill',
      vmid: String(vmid),
    })) as Reply[]
  const untilFilling = (vmid: number, except: readonly unknown[] = []) =>
    waitFor(
      async () =>
        (await fillings(vmid)).find(({ upid, status }) => status === 'RUNNING' && !except.includes(upid))?.upid,
      { what: 'a task that fills the disks', timeoutMs: 60_000 },
    ).then(String)
  /** Kills what has this among its arguments, and sees it gone. */
  const kill = async (argument: string) => {
    const [pid = -1] = await findProcesses((argv) => argv.some((one) => one.includes(argument)))
    assert.ok(await signalProcess(pid, (await startTimeOf(pid)) ?? -1, 'SIGKILL'), argument)
  }
  const serverOf = (vmid: number) => `--sockets=${node.settings.runDir}/below/${vmid}`

  test('nobody who dies on the way takes anything with him', async () => {
    await node.task(await restore(101, { bwlimit: '512' }))
    const first = await untilFilling(101)
    assert.equal((await statusOf(101)).lock, 'create')
    await untilAgent(101)
    assert.match(await blocks(101), /nbd/, 'the disk was whole before the guest was up')
    await node.sh(101, 'echo written meanwhile > /fresh; sync')
    const written = (letter: string, at: number) => `tr '\\0' ${letter} < /dev/zero | dd of=${scsiDisk(1)} bs=1k count=700 seek=${at} conv=notrunc,fsync` // prettier-ignore
    await node.sh(101, `${written('x', 100)}; ${written('y', 5_000)}`)
    const expected = Buffer.from(second)
      .fill('x', 100 * KiB, 800 * KiB)
      .fill('y', 5_000 * KiB, 5_700 * KiB)

    // The daemon, the server and the task, all at once.
    await node.kill9()
    await kill(serverOf(101))
    const pid = Number.parseInt(first.split(':')[2] ?? '', 16)
    assert.ok(await signalProcess(pid, (await startTimeOf(pid)) ?? -1, 'SIGKILL'))
    await node.restart()
    await untilFilling(101, [first])
    // Not from the guest's own memory.
    await node.sh(101, 'echo 3 > /proc/sys/vm/drop_caches; cat /etc/os-release /bin/busybox > /dev/null')

    // What would have to read half a disk is refused; the backup cannot go.
    const refused: readonly (readonly ['POST' | 'PUT' | 'DELETE', string, Record<string, string>])[] = [
      ['POST', `${qemu}/101/snapshot`, { snapname: 'now' }],
      ['POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '101', storage: 'local' }],
      ['POST', `${qemu}/101/clone`, { newid: '109' }],
      ['POST', `${qemu}/101/move_disk`, { disk: 'scsi0', storage: 'local', format: 'raw' }],
    ]
    for (const [method, path, params] of refused)
      await node.task(await node.api(method, path, params), /locked \(create\)|guest 101|job errors/)
    await assert.rejects(node.api('PUT', `${qemu}/101/config`, { delete: 'scsi0' }), /locked \(create\)/)
    const content = `/nodes/${node.settings.node}/storage/local/content/${archive}`
    const deleted = await node.api('DELETE', content).then(
      (upid) => node.task(upid, /needed by VM 101/).then(() => 'refused'),
      (fault: unknown) => (/needed by VM 101/.test(String(fault)) ? 'refused' : fault),
    )
    assert.equal(deleted, 'refused')

    // QEMU itself.
    await kill(`${node.settings.runDir}/guests/101/`)
    await waitFor(async () => (await statusOf(101)).status === 'stopped', { what: 'its end', timeoutMs: 30_000 })
    await waitFor(async () => (await fillings(101)).every(({ status }) => status !== 'RUNNING'), {
      what: 'the end of its filling',
      timeoutMs: 30_000,
    })
    await node.task(await node.api('POST', `${qemu}/101/status/start`))
    const last = await untilFilling(101)
    await untilAgent(101)
    assert.equal(await node.sh(101, 'cat /fresh'), 'written meanwhile')

    await node.api('POST', `${qemu}/101/monitor`, { command: 'block_job_set_speed fill-scsi0 0' })
    const { log } = await node.task(last)
    for (const drive of ['scsi0', 'scsi1']) assert.match(log, new RegExp(`${drive}: all of it is there`))
    assert.doesNotMatch(await blocks(101), /nbd/)
    assert.equal((await statusOf(101)).lock, undefined)
    assert.deepEqual(await findProcesses((argv) => argv.includes(serverOf(101))), [])
    // All of the disk, and not from the guest's own memory.
    await node.sh(101, `echo 3 > /proc/sys/vm/drop_caches; cat ${scsiDisk(0)} > /dev/null`)
    assert.equal(await node.sh(101, 'cat /fresh'), 'written meanwhile')
    // What came and what the guest wrote before anybody died, bit for bit.
    const digest = createHash('sha256').update(expected).digest('hex')
    assert.equal(await node.sh(101, `sha256sum < ${scsiDisk(1)}`), `${digest}  -`)
    assert.deepEqual(await readdir(join(node.settings.runDir, 'below')), [])
  })

  test('what is damaged in the backup is named, costs nothing else, and stays needed', async () => {
    const packs = node.settings.stateDir
    const names = (await readdir(packs, { recursive: true })).filter((name) => /packs\/[^.]{20,}$/.test(name))
    const sizes = await Promise.all(names.map(async (name) => ({ name, size: (await stat(join(packs, name))).size })))
    const [largest] = sizes.toSorted((a, b) => b.size - a.size)
    const file = await open(join(packs, largest?.name ?? ''), 'r+')
    // In the middle of what is stored of the disk.
    await file.write(Buffer.alloc(16, 0xa5), 0, 16, Math.floor((await file.stat()).size / 2))
    await file.close()
    await node.task(await restore(103))
    const [task] = await waitFor(
      async () => {
        const tasks = await fillings(103)
        return tasks.length > 0 && tasks.every(({ status }) => status !== 'RUNNING') && tasks
      },
      { what: 'the end of its filling', timeoutMs: 60_000 },
    )
    const { log } = await node.task(task?.upid, /parts of the backup cannot be read/)
    assert.match(log, /cannot be read: scsi0: 131072 bytes at \d+: .*pack/)
    assert.match(await blocks(103), /nbd/)
    assert.equal((await statusOf(103)).status, 'running')
    await node.task(await node.api('POST', `${qemu}/103/status/stop`))
    assert.deepEqual(await findProcesses((argv) => argv.includes(serverOf(103))), [])
    await node.task(await node.api('DELETE', `${qemu}/103`))
    // Nobody needs it any more.
    await node.task(await node.api('DELETE', `/nodes/${node.settings.node}/storage/local/content/${archive}`))
  })

  test('is refused without a backup to run from', async () => {
    await assert.rejects(
      node.api('POST', qemu, { vmid: '102', 'live-restore': '1' }),
      (fault) => isFault(fault, 'invalid') && /backup of a datastore/.test(String(fault.fields?.['live-restore'])),
    )
  })
})
