/** What a drill says of a good backup and of each way a backup can be worth less than it looks. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFile, open, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { machine } from '#host/exec.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { verifyEvidence } from '#recovery/evidence.ts'
import type { KeptDrill } from '#recovery/service.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
const probes = (text: string) => ({
  probe0: `http,path=/known,sha256=${sha256(text)}`,
  probe1: `file,path=/www/known,sha256=${sha256(text)}`,
})

suite('drills', { timeout: 900_000 }, () => {
  let node: TestNode
  before(async () => {
    node = await nodeUnderTest()
  })
  after(() => node[Symbol.asyncDispose]())

  const backup = async (vmid: number) =>
    node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: String(vmid), storage: 'local' }))
  const drill = async (vmid: number, params: Record<string, string>, expected: RegExp): Promise<KeptDrill> => {
    const { log } = await node.task(await node.api('POST', '/hako/drills', { vmid: String(vmid), ...params }), expected)
    const [, scratch = ''] = /scratch guest (\d+)/.exec(log) ?? []
    assert.ok(log.includes(`scratch guest ${scratch} removed, with its disks`), log)
    const [newest] = (await node.api('GET', '/hako/drills')) as KeptDrill[]
    assert.ok(newest)
    return newest
  }

  test('a good backup of a running guest is proven to L6 with the content of its restore point, and nothing stays', async () => {
    await node.boot(100)
    await node.sh(100, 'printf before > /www/known; sync')
    await backup(100)
    await node.sh(100, 'printf after > /www/known; sync')
    const before = await things(node)

    const kept = await drill(100, { level: 'L6', ...probes('before') }, /^OK$/)

    assert.equal(Number(kept.proven), 1)
    assert.equal(kept.reached, 'L6')
    assert.match(
      kept.quote,
      /^VM 100 proven to L6: restored, booted and answering in \d\d:\d\d\.\d; data from \d\d:\d\d:\d\d before now$/,
    )
    assert.deepEqual(Object.keys(kept.phases).toSorted(), ['application', 'boot', 'fetch', 'ready', 'write'])
    assert.deepEqual(await things(node), before)
    assert.equal(await node.sh(100, 'cat /www/known'), 'after')
  })

  test('its evidence shows console, screen and disks, and verifies offline', async () => {
    const [kept] = (await node.api('GET', '/hako/drills')) as KeptDrill[]
    assert.ok(kept)
    const names = await readdir(kept.evidence)
    for (const name of [
      'record.json',
      'console.txt',
      'screen.png',
      'disks.json',
      'guest-config.json',
      'environment.json',
    ])
      assert.ok(names.includes(name), name)
    assert.match(await readFile(join(kept.evidence, 'console.txt'), 'utf8'), /READY/)
    assert.equal((await readFile(join(kept.evidence, 'screen.png'))).subarray(1, 4).toString(), 'PNG')
    const { complaints } = await verifyEvidence(
      kept.evidence,
      await readFile(join(node.settings.stateDir, 'keys/evidence.pub'), 'utf8'),
    )
    assert.deepEqual(complaints, [])
  })

  test('content that is not that of the restore point reaches L5, not L6', async () => {
    const kept = await drill(
      100,
      { level: 'L6', ...probes('after') },
      /NOT proven: reached L5 of L6; L6 failed: http \/known: content has SHA-256/,
    )
    assert.equal(kept.reached, 'L5')
    assert.equal(kept.recoveryTimeMs, undefined)
  })

  test('a backup without its web server reaches L5, not L6', async () => {
    await node.sh(100, 'rm /etc/start/web; sync')
    await backup(100)
    const kept = await drill(
      100,
      { level: 'L6', ...probes('after') },
      /NOT proven: reached L5 of L6; L6 failed: http \/known/,
    )
    assert.equal(kept.reached, 'L5')
  })

  test('a disk without a boot loader reaches L2, not L3', async () => {
    const image = await ensureGuestImage({ host: machine(), cacheDir: node.settings.cacheDir })
    const broken = join(node.settings.stateDir, 'broken.raw')
    await copyFile(image.path, broken)
    const disk = await open(broken, 'r+')
    await disk.write(new Uint8Array(512), 0, 512, 0)
    await disk.close()
    await node.task(
      await node.api('POST', `/nodes/${node.settings.node}/qemu`, {
        vmid: '101',
        memory: '192',
        agent: '1',
        serial0: 'socket',
        scsihw: 'virtio-scsi-pci',
        scsi0: `local:0,import-from=${broken}`,
        boot: 'order=scsi0',
      }),
    )
    await backup(101)
    const kept = await drill(101, { level: 'L5' }, /NOT proven: reached L2 of L5; L3 failed/)
    assert.equal(kept.reached, 'L2')
  })

  test('one flipped byte of the datastore is found at L1 and the chunk is named', async () => {
    await flipByte(join(await datastoreOf(node), 'packs'))
    const kept = await drill(101, { level: 'L5' }, /NOT proven: reached L0 of L5; L1 failed: .*chunk [0-9a-f]{16}/)
    assert.equal(kept.reached, 'L0')
  })

  test('a guest without a restore point is an error, not a proof of anything', async () => {
    await assert.rejects(drill(999, {}, /^OK$/), /restore point of guest '999' does not exist/)
  })
})

/** What exists on the machine and in the node's store: the same before and after a drill. */
async function things(node: TestNode): Promise<object> {
  const host = machine()
  const output = async (...argv: [string, ...string[]]) =>
    (await host.run(argv, { okCodes: [0, 1] })).stdout
      .split('\n')
      .filter((line) => line.includes(node.settings.instance))
      .toSorted()
  const guests = (await node.api('GET', '/cluster/resources', { type: 'vm' })) as { vmid: number }[]
  const volumes = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
    content: 'images',
  })) as { volid: string }[]
  return {
    guests: guests.map(({ vmid }) => vmid),
    volumes: volumes.map(({ volid }) => volid),
    links: (await output('ip', '-brief', 'link')).map((line) => line.split(/\s/)[0]),
    netns: await output('ip', 'netns', 'list'),
    qemus: (
      await host.run(['pgrep', '-fc', `qemu-system.*${node.settings.runDir}`], { okCodes: [0, 1] })
    ).stdout.trim(),
    runDirs: (await readdir(join(node.settings.runDir), { recursive: true })).filter((name) => /99\d{7}/.test(name)),
  }
}

async function datastoreOf(node: TestNode): Promise<string> {
  const { path } = (await node.api('GET', '/storage/local')) as { path: string }
  return join(path, 'datastore')
}

/** Flips one bit in the middle of the largest file below a directory: certainly inside a chunk. */
async function flipByte(directory: string): Promise<void> {
  const names = await readdir(directory, { recursive: true, withFileTypes: true })
  const files = await Promise.all(
    names
      .filter((entry) => entry.isFile())
      .map(async (entry) => ({
        path: join(entry.parentPath, entry.name),
        size: (await stat(join(entry.parentPath, entry.name))).size,
      })),
  )
  const largest = files.toSorted((a, b) => b.size - a.size)[0]
  assert.ok(largest)
  const file = await open(largest.path, 'r+')
  const byte = new Uint8Array(1)
  const at = Math.floor(largest.size / 2)
  await file.read(byte, 0, 1, at)
  byte[0] = (byte[0] ?? 0) ^ 1
  await file.write(byte, 0, 1, at)
  await file.close()
}
