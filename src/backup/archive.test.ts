/** A restore point taken elsewhere: the archives are read by those who read archives. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { memorySource, memoryTarget } from '../../test/fixtures/datastore.ts'
import { makeEveryEntry, unsettledSource } from '../../test/fixtures/every-entry.ts'
import { point, temporaryDatastore } from '../../test/fixtures/sealed-datastore.ts'
import { differences, treeManifest } from '../../test/fixtures/tree-manifest.ts'
import { headersOf } from '../../test/fixtures/vma-writer.ts'
import { archiveOf } from './archive.ts'
import { VmaReader } from './vma/reader.ts'

const host = machine()

for (const chunkBytes of [65_536, 262_144]) {
  test(`the archive of a virtual machine has its disks and its configuration (chunks of ${chunkBytes} bytes)`, async () => {
    await using temporary = await temporaryDatastore({ chunkBytes })
    const open = await temporary.reopen()
    const disks: Record<string, Buffer> = {
      scsi0: Buffer.concat([
        randomBytes(300_000),
        Buffer.alloc(9_000_000),
        randomBytes(70_000),
        Buffer.alloc(1_000_000),
      ]),
      efidisk0: Buffer.concat([Buffer.alloc(100_000), randomBytes(512 * 3)]),
      virtio1: Buffer.alloc(131_072),
    }
    const conf = 'name: web\nscsi0: local:100/vm-100-disk-0.qcow2,size=10G\n'
    {
      await using writer = await open.begin(point(0))
      for (const [name, content] of Object.entries(disks)) await writer.addDisk(name, memorySource(content))
      await writer.addFile('qemu-server.conf', conf)
      await writer.commit()
    }
    await using reader = await open.open(point(0))
    const { fileName, bytes } = await archiveOf(reader, systemRandom)
    assert.match(fileName, /^vzdump-qemu-100-\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d\.vma$/)
    const archive = Buffer.concat(await Array.fromAsync(bytes))
    // Zeros cost nothing but their entries.
    assert.ok(archive.length < 600_000, `${archive.length} bytes`)
    // As whoever shares no code with the writer finds its way through it.
    const last = headersOf(archive).at(-1)
    assert.equal(last && last.to + archive.readUInt16BE(last.from + 6) * 4_096, archive.length)
    await using vma = await VmaReader.open(Readable.from([archive]))
    const written = vma.header.configs.get('qemu-server.conf')?.toString() ?? ''
    assert.ok(written.startsWith(conf) && written.includes('#qmdump#map:efidisk0:drive-efidisk0::raw:\n'))
    const targets = new Map(vma.header.devices.map(({ name, sizeBytes }) => [name, memoryTarget(sizeBytes)]))
    await vma.restore(targets, { clock: systemClock })
    for (const [name, content] of Object.entries(disks)) {
      assert.ok(targets.get(`drive-${name}`)?.content.equals(content), name)
    }
  })
}

test('the archive of a container has its mount points in their places and its configuration in front', async () => {
  await using temporary = await temporaryDatastore()
  const home = mkdtempSync(join(tmpdir(), 'hako-archive-'))
  try {
    const [rootfs, mounted, target] = ['rootfs', 'mounted', 'target'].map((name) => join(home, name)) as [
      string,
      string,
      string,
    ]
    for (const folder of [rootfs, mounted, target]) mkdirSync(folder)
    await makeEveryEntry(rootfs)
    mkdirSync(join(rootfs, 'srv/data'), { recursive: true })
    writeFileSync(join(mounted, 'file'), 'mounted')
    mkdirSync(join(mounted, 'lost+found'))
    const id = { ...point(0, '101'), type: 'ct' } as const
    const open = await temporary.reopen()
    {
      await using writer = await open.begin(id)
      await writer.addTree('mp0', unsettledSource({ root: mounted }))
      await writer.addTree('rootfs', unsettledSource({ root: rootfs }))
      await writer.addFile('pct.conf', 'hostname: web\n')
      await writer.commit({ facts: { mounts: { rootfs: '/', mp0: '/srv/data' } } })
    }
    await using reader = await open.open(id)
    const { fileName, bytes } = await archiveOf(reader, systemRandom)
    assert.match(fileName, /^vzdump-lxc-101-.*\.tar$/)
    const file = join(home, fileName)
    await pipeline(Readable.from(bytes), createWriteStream(file))
    const { stdout: names } = await host.run(['tar', '-tf', file])
    assert.deepEqual(names.split('\n').slice(0, 2), ['./etc/vzdump/pct.conf', './'])
    // As it is asked for by those who restore it.
    assert.equal(
      (await host.run(['tar', '-xpOf', file, './etc/vzdump/pct.conf', '--occurrence'])).stdout,
      'hostname: web\n',
    )
    const options = ['--xattrs', '--xattrs-include=*', '--acls', '--numeric-owner', '--exclude=./etc']
    await host.run(['tar', '-xpf', file, '-C', target, ...options])
    writeFileSync(join(rootfs, 'srv/data/file'), 'mounted')
    assert.equal(readFileSync(join(target, 'srv/data/file'), 'utf8'), 'mounted')
    const without = { without: ['mtime'] as const }
    const lost = differences(treeManifest(rootfs, without), treeManifest(target, without))
    assert.deepEqual(
      lost.map((line) => line.replace(/:.*/s, '')),
      // A tar knows no sockets.
      ['kept-socket'],
    )
    await using other = await open.begin(point(1))
    await other.addDisk('scsi0', memorySource(Buffer.alloc(65_536)))
    await other.commit()
    await using bare = await open.open(point(1))
    await assert.rejects(
      archiveOf(bare, systemRandom),
      (error) => isFault(error, 'invalid') && /no qemu-server/.test(error.message),
    )
  } finally {
    await removeTree(host, home)
  }
})
