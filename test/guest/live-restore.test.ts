/** A guest runs from its backup while its disks come, and a restore that is cut off leaves what was before. */
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { signalProcess, startTimeOf } from '#host/proc.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

type Reply = Record<string, unknown>

suite('a restore into a running guest', { timeout: 900_000 }, () => {
  let node: TestNode
  let qemu: string
  let archive: string
  before(async () => {
    node = await nodeUnderTest()
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
  const volumes = async () =>
    ((await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, { content: 'images' })) as Reply[])
      .map(({ volid }) => String(volid))
      .toSorted()

  test('is cut off by the death of its task: the guest that was there is what it was', async () => {
    const [config, disks] = [await node.api('GET', `${qemu}/100/config`), await volumes()]
    // Slow enough to be still on its way.
    const upid = String(await restore(100, { force: '1', bwlimit: '512' }))
    await waitFor(async () => ((await node.api('GET', `${qemu}/100/status/current`)) as Reply).status === 'running', {
      what: 'the guest to run',
      timeoutMs: 60_000,
    })
    assert.match(await blocks(100), /nbd/)
    const pid = Number.parseInt(upid.split(':')[2] ?? '', 16)
    assert.ok(await signalProcess(pid, (await startTimeOf(pid)) ?? -1, 'SIGKILL'))
    await waitFor(
      async () => {
        const { status } = (await node.api('GET', `${qemu}/100/status/current`)) as Reply
        return status === 'stopped' && (await volumes()).join() === disks.join()
      },
      { what: 'the undo', timeoutMs: 120_000 },
    )
    assert.deepEqual(await node.api('GET', `${qemu}/100/config`), config)
  })

  test('lets the guest work at once, and in the end it needs the backup no more', async () => {
    const upid = await restore(101, { bwlimit: '512' })
    await untilAgent(101)
    assert.match(await blocks(101), /nbd/, 'the disk was whole before the guest was up')
    assert.match(await node.sh(101, 'cat /etc/os-release'), /NAME=/)
    await node.sh(101, 'echo written meanwhile > /fresh; sync')
    await node.api('POST', `${qemu}/101/monitor`, { command: 'block_job_set_speed fill-scsi0 0' })
    const { log } = await node.task(upid)
    assert.match(log, /scsi0: all of it is there/)
    assert.doesNotMatch(await blocks(101), /nbd/)
    await node.api('DELETE', `/nodes/${node.settings.node}/storage/local/content/${archive}`)
    // All of the disk, and not from the guest's own memory.
    await node.sh(101, 'echo 3 > /proc/sys/vm/drop_caches; cat /dev/sda > /dev/null')
    assert.equal(await node.sh(101, 'cat /fresh'), 'written meanwhile')
    assert.deepEqual(
      (await readdir(node.settings.runDir)).filter((name) => name.startsWith('restore-')),
      [],
    )
  })

  test('is refused without a backup to run from', async () => {
    await assert.rejects(
      node.api('POST', qemu, { vmid: '102', 'live-restore': '1' }),
      (fault) => isFault(fault, 'invalid') && /backup of a datastore/.test(String(fault.fields?.['live-restore'])),
    )
  })
})
