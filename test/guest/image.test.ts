/** The tiny guest itself: every other test of a guest stands on what is shown here. */
import assert from 'node:assert/strict'
import { copyFile, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { before, suite, test, type TestContext } from 'node:test'
import type { AgentClient } from '#host/qemu/guest-agent.ts'
import { mountImage } from '#host/disks/mount.ts'
import { machine } from '#host/exec.ts'
import { ensureGuestImage, type GuestImage } from '#lab/guest-image.ts'
import { boot } from './bare-guest.ts'
import { said } from './inside.ts'

suite('the tiny guest', { concurrency: 1, timeout: 900_000 }, () => {
  let image: GuestImage
  before(async () => {
    image = await ensureGuestImage({ host: machine(), cacheDir: '/var/cache/hakobune' })
  })

  for (const way of ['virtio-scsi', 'virtio-blk'] as const) {
    test(`boots from a ${way} disk, serves its page, freezes, and counts its boots across a power button`, async () => {
      await using guest = await boot(image, way)
      assert.match(await guest.until(/^READY/), /^READY boots=1 root=\/dev\/[sv]da$/)
      await guest.until(/^ADDRESS eth0 10\./)
      assert.match((await guest.page('/')).body, /<h1>Hakobune lab guest<\/h1>/)
      assert.equal((await guest.page('/none')).status, 404)
      {
        await using agent = await guest.agent()
        assert.equal(await agent.execute('guest-fsfreeze-freeze'), 1)
        assert.equal(await agent.execute('guest-fsfreeze-status'), 'frozen')
        assert.equal((await guest.page('/')).status, 200, 'the page is served while the disk is frozen')
        assert.equal(await agent.execute('guest-fsfreeze-thaw'), 1)
        await writeFile(agent, '/www/known', 'kept')
      }
      assert.deepEqual(await guest.page('/known'), { status: 200, body: 'kept' })
      {
        await using qmp = await guest.qmp()
        await qmp.execute('system_powerdown')
        await guest.untilOff()
      }

      await using again = await boot(image, way, { disk: guest.disk })
      assert.match(await again.until(/^READY/), /boots=2/)
      await again.until(/^ADDRESS/)
      assert.deepEqual(await again.page('/known'), { status: 200, body: 'kept' })
      assert.deepEqual(JSON.parse((await again.page('/cgi-bin/state')).body).boots, 2)
    })
  }

  test('runs from memory without a disk, runs programs for the agent, and shuts down on its word', async () => {
    await using guest = await boot(image, 'memory')
    assert.match(await guest.until(/^READY/), /root=memory/)
    await using agent = await guest.agent()
    assert.equal(await said(agent, 'echo $((6 * 7))'), '42')
    await agent.tell('guest-shutdown')
    await guest.untilOff()
  })

  test('keeps its web server and its agent off when told so on its disk', async (t) => {
    const disk = await ownDisk(t, image)
    {
      await using mounted = await mountImage(machine(), { image: disk, target: join(dirname(disk), 'mounted') })
      for (const name of ['web', 'agent']) await rm(join(mounted.target, 'etc/start', name))
    }
    await using guest = await boot(image, 'virtio-scsi', { disk })
    await guest.until(/^ADDRESS/)
    await assert.rejects(guest.page('/'))
    await assert.rejects(guest.agent(3_000), /guest agent is not running/)
  })

  test('without its boot sector the firmware finds nothing to boot', async (t) => {
    const disk = await ownDisk(t, image)
    await using file = await open(disk, 'r+')
    await file.write(new Uint8Array(512), 0, 512, 0)
    await using broken = await boot(image, 'virtio-blk', { disk })
    await broken.untilFirmware(/No bootable device/)
    assert.doesNotMatch(await broken.serial(), /SYSLINUX/)
  })
})

/** A copy of the disk the guests above have booted from. */
async function ownDisk(t: TestContext, image: GuestImage): Promise<string> {
  const place = await mkdtemp(join(tmpdir(), 'hako-image-'))
  t.after(() => rm(place, { recursive: true }))
  await copyFile(image.path, join(place, 'disk.raw'))
  return join(place, 'disk.raw')
}

async function writeFile(agent: AgentClient, path: string, text: string): Promise<void> {
  const handle = await agent.execute<number>('guest-file-open', { path, mode: 'w' })
  await agent.execute('guest-file-write', { handle, 'buf-b64': Buffer.from(text).toString('base64') })
  await agent.execute('guest-file-close', { handle })
}
